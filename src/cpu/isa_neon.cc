// The CPU kernels for the instruction set "neon"; this file's compiler flags are in cmake/isa.cmake.
#define REGARD_ISA neon
#include "src/cpu/simd/neon.h"

#include "src/cpu/tile/decode.h"

namespace regard::cpu {

const ForwardKernels kNeonF32 = neon::MakeKernels<neon::MathF32>();

}  // namespace regard::cpu
