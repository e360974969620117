// The backward kernels for the instruction set "scalar"; this file's compiler flags are in cmake/isa.cmake.
#define REGARD_ISA scalar
#include "src/cpu/simd/scalar.h"

#include "src/cpu/tile/backward.h"

namespace regard::cpu {

const BackwardKernels kScalarF32Backward = scalar::MakeBackward<scalar::MathF32>();

}  // namespace regard::cpu
