// Compiles CUDA kernels for looking at: with no GPU, in several processes at once, so that a compiler that crashes
// takes only its own process along. Nothing goes through the module cache.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/sass_counts.h"
#include "src/cuda/driver/instance.h"

namespace regard::cli {

struct CompileJob {
  cuda::KernelInstance instance;
  cuda::Arch arch;
};

struct KernelReport {
  std::string name, arch;
  std::string error;                  // begins with the kernel's name; "" where it was compiled
  int registers = 0, threads = 0;
  unsigned static_shared_bytes = 0, dynamic_shared_bytes = 0;
  unsigned spill_store_bytes = 0, spill_load_bytes = 0, stack_bytes = 0;
  std::int64_t cubin_bytes = 0, code_bytes = 0;
  double seconds = 0;
  int occupancy_blocks = 0, occupancy_warps = 0;  // of a multiprocessor; 0: unknown
  double occupancy = 0;
  std::string limited_by;
  InstructionCounts instructions;     // where a disassembler is present (cli/sass_counts.h)
  std::string known_spill;            // why spills are accepted; "" where they are not, or there are none

  unsigned SpillBytes() const { return spill_store_bytes + spill_load_bytes; }
  bool Good() const { return error.empty() && (SpillBytes() == 0 || !known_spill.empty()); }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(KernelReport, name, arch, error, registers, threads, static_shared_bytes,
                                   dynamic_shared_bytes, spill_store_bytes, spill_load_bytes, stack_bytes, cubin_bytes,
                                   code_bytes, seconds, occupancy_blocks, occupancy_warps, occupancy, limited_by,
                                   instructions, known_spill)

// Compiles one kernel in this process. `keep`: a folder that gets its source, log and cubin, or "".
KernelReport CompileOne(const CompileJob& job, const std::string& keep);

// All of them, at most `processes` at once; reports in the order of the jobs. `progress` is called in this process as
// each one ends. Stops early on Ctrl-C: kernels that were not compiled then are missing.
std::vector<KernelReport> CompileKernels(const std::vector<CompileJob>& jobs, int processes, const std::string& keep,
                                         const std::function<void(const KernelReport&)>& progress);

}  // namespace regard::cli
