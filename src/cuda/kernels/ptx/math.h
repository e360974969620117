// f32 arithmetic. Only what is written Fma fuses (--fmad=false).
#pragma once

#include "base/types.h"

namespace regard::cuda {

REGARD_DEVICE float Infinity() { return __builtin_bit_cast(float, 0x7f800000u); }
REGARD_DEVICE float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
// The larger one; a NaN loses against a number.
REGARD_DEVICE float Larger(float a, float b) { return fmaxf(a, b); }
REGARD_DEVICE float Absolute(float x) { return fabsf(x); }
// 2^x, relative error about 2^-22; results below 2^-126 are 0 (ex2.approx.ftz).
REGARD_DEVICE float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// log2(x), absolute error about 2^-22 near 1, relative elsewhere (lg2.approx).
REGARD_DEVICE float Log2(float x) {
  float y;
  asm("lg2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// Nearest even.
REGARD_DEVICE float Divide(float a, float b) { return __fdiv_rn(a, b); }
// The upper 32 bits of a product.
REGARD_DEVICE u32 MultiplyHigh(u32 a, u32 b) { return __umulhi(a, b); }

}  // namespace regard::cuda
