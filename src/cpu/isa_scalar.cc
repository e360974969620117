// The CPU kernels for the instruction set "scalar"; this file's compiler flags are in cmake/isa.cmake.
#define REGARD_ISA scalar
#include "src/cpu/simd/scalar.h"

#include "src/cpu/tile/decode.h"

namespace regard::cpu {

const ForwardKernels kScalarF32 = scalar::MakeKernels<scalar::MathF32>();

}  // namespace regard::cpu
