// The backward kernels for the instruction set "neon"; this file's compiler flags are in cmake/isa.cmake.
#define REGARD_ISA neon
#include "src/cpu/simd/neon.h"

#include "src/cpu/tile/backward.h"

namespace regard::cpu {

const BackwardKernels kNeonF32Backward = neon::MakeBackward<neon::MathF32>();

}  // namespace regard::cpu
