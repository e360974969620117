// Conversions between f32 and the small float types by integer arithmetic, for chips whose instruction set lacks them
// (bf16 before sm_80, fp8 before sm_89), and for the emulator. Tested over every input against regard/dtype.h.
// Formats: IEEE 754 binary16; bf16, the high half of binary32; OCP FP8 E4M3 (no infinity, NaN 0x7f, largest 448) and
// E5M2 (as binary16, largest 57344), from the OCP 8-bit Floating Point Specification (OFP8) 1.0.
#pragma once

#include "base/types.h"

namespace regard::cuda {

REGARD_DEVICE u32 BitsOf(float x) { return __builtin_bit_cast(u32, x); }
REGARD_DEVICE float FloatOf(u32 bits) { return __builtin_bit_cast(float, bits); }

REGARD_DEVICE float WideBF16(BF16 x) { return FloatOf(static_cast<u32>(x.bits) << 16); }

// Nearest, ties to even; NaN becomes 0x7fff, as the instruction gives it.
REGARD_DEVICE BF16 NarrowBF16(float x) {
  const u32 bits = BitsOf(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<u16>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16)};
}

// f32 to a float of `mantissa` bits and the given exponent bias, nearest even, as magnitude bits; below the least normal
// it is the subnormal. Overflow and NaN are the caller's.
template <int mantissa, int bias>
REGARD_DEVICE u32 NarrowMagnitude(u32 magnitude) {
  constexpr int kShift = 23 - mantissa;
  constexpr u32 kLeastNormal = static_cast<u32>(127 - bias + 1) << 23;
  if (magnitude >= kLeastNormal) {
    const u32 rebased = magnitude - (static_cast<u32>(127 - bias) << 23);
    return (rebased + (1u << (kShift - 1)) - 1 + ((rebased >> kShift) & 1)) >> kShift;
  }
  const int exponent = static_cast<int>(magnitude >> 23);
  const int shift = kShift + (127 - bias + 1) - exponent;  // to units of the least subnormal
  if (shift > 25) return 0;                                // below half of the least subnormal
  const u32 value = (magnitude & 0x7fffffu) | (exponent > 0 ? 0x800000u : 0);
  const u32 kept = value >> shift, rest = value & ((1u << shift) - 1), half = 1u << (shift - 1);
  return kept + (rest > half || (rest == half && (kept & 1)) ? 1 : 0);
}

// The value of magnitude bits of a float with `mantissa` bits and the given bias; infinities and NaN are the caller's.
template <int mantissa, int bias>
REGARD_DEVICE float WideMagnitude(u32 magnitude) {
  const u32 exponent = magnitude >> mantissa, fraction = magnitude & ((1u << mantissa) - 1);
  if (exponent == 0) {  // fraction * 2^(1 - bias - mantissa), both factors exact
    return static_cast<float>(fraction) * FloatOf(static_cast<u32>(127 + 1 - bias - mantissa) << 23);
  }
  return FloatOf(((exponent + 127 - bias) << 23) | (fraction << (23 - mantissa)));
}

REGARD_DEVICE F16 NarrowF16Bits(float x) {
  const u32 bits = BitsOf(x), magnitude = bits & 0x7fffffffu, sign = (bits >> 16) & 0x8000u;
  if (magnitude > 0x7f800000u) return {0x7fff};
  const u32 rounded = magnitude >= 0x47800000u ? 0x7c00u : NarrowMagnitude<10, 15>(magnitude);
  return {static_cast<u16>(sign | rounded)};
}

REGARD_DEVICE float WideF16Bits(F16 x) {
  const u32 magnitude = x.bits & 0x7fffu, sign = static_cast<u32>(x.bits & 0x8000u) << 16;
  const u32 wide = magnitude >= 0x7c00u ? 0x7f800000u | ((magnitude & 0x3ffu) << 13)
                                        : BitsOf(WideMagnitude<10, 15>(magnitude));
  return FloatOf(sign | wide);
}

REGARD_DEVICE float WideE4M3(E4M3 x) {
  const u32 magnitude = x.bits & 0x7fu, sign = static_cast<u32>(x.bits & 0x80u) << 24;
  return FloatOf(sign | (magnitude == 0x7fu ? 0x7fc00000u : BitsOf(WideMagnitude<3, 7>(magnitude))));
}
REGARD_DEVICE float WideE5M2(E5M2 x) { return WideF16Bits({static_cast<u16>(x.bits << 8)}); }

// The same values as binary16, which holds every fp8 value exactly.
REGARD_DEVICE F16 HalfOfE5M2(E5M2 x) { return {static_cast<u16>(x.bits << 8)}; }
REGARD_DEVICE F16 HalfOfE4M3(E4M3 x) { return NarrowF16Bits(WideE4M3(x)); }

// Nearest even, saturated (infinity included), NaN kept.
REGARD_DEVICE E4M3 NarrowE4M3Bits(float x) {
  const u32 bits = BitsOf(x), magnitude = bits & 0x7fffffffu, sign = (bits >> 24) & 0x80u;
  if (magnitude > 0x7f800000u) return {0x7f};
  const u32 rounded = magnitude >= 0x43e00000u ? 0x7eu : NarrowMagnitude<3, 7>(magnitude);
  return {static_cast<u8>(sign | rounded)};
}
REGARD_DEVICE E5M2 NarrowE5M2Bits(float x) {
  const u32 bits = BitsOf(x), magnitude = bits & 0x7fffffffu, sign = (bits >> 24) & 0x80u;
  if (magnitude > 0x7f800000u) return {0x7f};
  const u32 rounded = magnitude >= 0x47600000u ? 0x7bu : NarrowMagnitude<2, 15>(magnitude);
  return {static_cast<u8>(sign | rounded)};
}

}  // namespace regard::cuda
