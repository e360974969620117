// The backward kernels for the instruction set "avx512"; this file's compiler flags are in cmake/isa.cmake.
#define REGARD_ISA avx512
#include "src/cpu/simd/avx512.h"

#include "src/cpu/tile/backward.h"

namespace regard::cpu {

const BackwardKernels kAvx512F32Backward = avx512::MakeBackward<avx512::MathF32>();

}  // namespace regard::cpu
