// The CPU kernels for the instruction set "avx2"; this file's compiler flags are in cmake/isa.cmake.
#define REGARD_ISA avx2
#include "src/cpu/simd/avx2.h"

#include "src/cpu/tile/decode.h"

namespace regard::cpu {

const ForwardKernels kAvx2F32 = avx2::MakeKernels<avx2::MathF32>();

}  // namespace regard::cpu
