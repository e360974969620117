// Emulated twin of src/cuda/kernels/ptx/convert.h, by integer arithmetic.
#pragma once

#include "base/float_bits.h"
#include "base/types.h"

namespace regard::cuda {

inline float Wide(float x) {
  return x;
}
inline float Wide(F16 x) {
  return WideF16Bits(x);
}
inline float Wide(BF16 x) {
  return WideBF16(x);
}
inline float Wide(E4M3 x) {
  return WideE4M3(x);
}
inline float Wide(E5M2 x) {
  return WideE5M2(x);
}

inline F16 NarrowF16(float x) {
  return NarrowF16Bits(x);
}
inline BF16 NarrowBF16Fast(float x) {
  return NarrowBF16(x);
}
inline E4M3 NarrowE4M3(float x) {
  return NarrowE4M3Bits(x);
}
inline E5M2 NarrowE5M2(float x) {
  return NarrowE5M2Bits(x);
}

inline u32 PackF16(float low, float high) {
  return NarrowF16(low).bits | static_cast<u32>(NarrowF16(high).bits) << 16;
}
inline u32 PackBF16(float low, float high) {
  return NarrowBF16(low).bits | static_cast<u32>(NarrowBF16(high).bits) << 16;
}

inline u32 HalvesOfE4M3(u16 pair) {
  const E4M3 low{static_cast<u8>(pair & 0xff)}, high{static_cast<u8>(pair >> 8)};
  return HalfOfE4M3(low).bits | static_cast<u32>(HalfOfE4M3(high).bits) << 16;
}
inline u32 HalvesOfE5M2(u16 pair) {
  return (pair & 0x00ffu) << 8 | (pair & 0xff00u) << 16;
}

}  // namespace regard::cuda
