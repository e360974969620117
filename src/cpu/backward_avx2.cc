// The backward kernels for the instruction set "avx2"; this file's compiler flags are in cmake/isa.cmake.
#define REGARD_ISA avx2
#include "src/cpu/simd/avx2.h"

#include "src/cpu/tile/backward.h"

namespace regard::cpu {

const BackwardKernels kAvx2F32Backward = avx2::MakeBackward<avx2::MathF32>();

}  // namespace regard::cpu
