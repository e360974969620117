// The CPU kernels for the instruction set "avx512"; this file's compiler flags are in cmake/isa.cmake.
#define REGARD_ISA avx512
#include "src/cpu/simd/avx512.h"

#include "src/cpu/tile/decode.h"

namespace regard::cpu {

const ForwardKernels kAvx512F32 = avx512::MakeKernels<avx512::MathF32>();

}  // namespace regard::cpu
