// Machine instructions of a cubin, counted from nvdisasm's listing where that program is present (PATH, or bin of
// CUDA_HOME and CUDA_PATH). The kernels' inner loops are unrolled, so that the tensor and matrix-load instructions of a
// listing are those of one step of a tile.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace regard::cli {

// By group: "tensor" (HMMA and its kin), "ldmatrix", "shared", "async" (cp.async), "global", "local" (spills and stack),
// "exp2" (and other special functions), "f32", "other". Groups that do not occur are missing.
using InstructionCounts = std::map<std::string, int>;

// Counts of a listing: lines such as "/*0010*/  @!P0 HMMA.16816.F32.BF16 R4, R8, R12, R4 ;".
InstructionCounts CountInstructions(std::string_view listing);

// The disassembler's path; "" where there is none. Looked for once.
const std::string& Disassembler();

// Runs it on a cubin. Empty without a disassembler; throws Error{"nvdisasm"} where it fails.
InstructionCounts CountOfCubin(const std::string& cubin);

}  // namespace regard::cli
