// The backward kernels for the instruction set "avx512_bf16"; this file's compiler flags are in cmake/isa.cmake.
#define REGARD_ISA avx512_bf16
#include "src/cpu/simd/avx512.h"

#include "src/cpu/tile/backward.h"

namespace regard::cpu {

const BackwardKernels kAvx512Bf16PairsBackward = avx512_bf16::MakeBackward<avx512_bf16::MathPairs>();

}  // namespace regard::cpu
