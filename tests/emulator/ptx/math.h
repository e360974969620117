// Emulated twin of src/cuda/kernels/ptx/math.h. Exp2 and Log2 are the host library's, nearer to the truth than a
// chip's.
#pragma once

#include <cmath>

#include "base/types.h"

namespace regard::cuda {

inline float Infinity() {
  return __builtin_bit_cast(float, 0x7f800000u);
}
inline float Fma(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline float Larger(float a, float b) {
  return std::fmax(a, b);
}
inline float Absolute(float x) {
  return std::fabs(x);
}
inline float Exp2(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0 : y;  // NaN stays
}
inline float Log2(float x) {
  return std::log2(x);
}
inline float Divide(float a, float b) {
  return a / b;
}
inline u32 MultiplyHigh(u32 a, u32 b) {
  return static_cast<u32>((static_cast<u64>(a) * b) >> 32);
}

}  // namespace regard::cuda
