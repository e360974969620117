// The CPU kernels for the instruction set "avx512_bf16"; this file's compiler flags are in cmake/isa.cmake.
#define REGARD_ISA avx512_bf16
#include "src/cpu/simd/avx512.h"

#include "src/cpu/tile/decode.h"

namespace regard::cpu {

const ForwardKernels kAvx512Bf16Pairs = avx512_bf16::MakeKernels<avx512_bf16::MathPairs>();

}  // namespace regard::cpu
