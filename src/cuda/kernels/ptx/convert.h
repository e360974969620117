// Between f32 and the small float types, by instruction where the chip has one: bf16 from sm_80, fp8 from sm_89.
#pragma once

#include "base/float_bits.h"
#include "base/types.h"

namespace regard::cuda {

REGARD_DEVICE float Wide(float x) { return x; }
REGARD_DEVICE float Wide(F16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
REGARD_DEVICE float Wide(BF16 x) { return WideBF16(x); }
REGARD_DEVICE float Wide(E4M3 x) { return WideE4M3(x); }
REGARD_DEVICE float Wide(E5M2 x) { return Wide(HalfOfE5M2(x)); }

REGARD_DEVICE F16 NarrowF16(float x) {
  F16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
REGARD_DEVICE BF16 NarrowBF16Fast(float x) {
#if __CUDA_ARCH__ >= 800
  BF16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  return NarrowBF16(x);
#endif
}
REGARD_DEVICE E4M3 NarrowE4M3(float x) {
#if __CUDA_ARCH__ >= 890
  u16 pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(x));
  return {static_cast<u8>(pair & 0xff)};
#else
  return NarrowE4M3Bits(x);
#endif
}
REGARD_DEVICE E5M2 NarrowE5M2(float x) {
#if __CUDA_ARCH__ >= 890
  u16 pair;
  asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(x));
  return {static_cast<u8>(pair & 0xff)};
#else
  return NarrowE5M2Bits(x);
#endif
}

// Two values as a pair of 16-bit ones, `low` in the low half.
REGARD_DEVICE u32 PackF16(float low, float high) {
#if __CUDA_ARCH__ >= 800
  u32 y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
#else
  return NarrowF16(low).bits | static_cast<u32>(NarrowF16(high).bits) << 16;
#endif
}
REGARD_DEVICE u32 PackBF16(float low, float high) {
#if __CUDA_ARCH__ >= 800
  u32 y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
#else
  return NarrowBF16(low).bits | static_cast<u32>(NarrowBF16(high).bits) << 16;
#endif
}

// Two fp8 values (low byte first) as a pair of binary16 ones, which hold them exactly.
REGARD_DEVICE u32 HalvesOfE4M3(u16 pair) {
#if __CUDA_ARCH__ >= 890
  u32 y;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(y) : "h"(pair));
  return y;
#else
  const E4M3 low{static_cast<u8>(pair & 0xff)}, high{static_cast<u8>(pair >> 8)};
  return HalfOfE4M3(low).bits | static_cast<u32>(HalfOfE4M3(high).bits) << 16;
#endif
}
REGARD_DEVICE u32 HalvesOfE5M2(u16 pair) { return (pair & 0x00ffu) << 8 | (pair & 0xff00u) << 16; }

}  // namespace regard::cuda
