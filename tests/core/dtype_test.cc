// Scalar conversions against a decoder that spells out each format in double arithmetic: every input of the small
// formats, and every midpoint between neighbours with the floats just beside it.

#include "regard/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "regard/status.h"
#include "src/core/fp_mode.h"

namespace regard {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Format {
  DType dtype;
  int exponent_bits, mantissa_bits, bias;
  bool has_infinity;
  std::uint32_t largest;        // bits of the largest finite value
  std::uint32_t canonical_nan;
  bool saturates;

  std::uint32_t codes() const { return 2u << (exponent_bits + mantissa_bits); }
  std::uint32_t sign() const { return codes() / 2; }
  bool IsNaN(std::uint32_t bits) const {
    const std::uint32_t magnitude = bits & (sign() - 1);
    return magnitude > largest + (has_infinity ? 1 : 0);
  }
  // The value by definition.
  double Value(std::uint32_t bits) const {
    const std::uint32_t magnitude = bits & (sign() - 1);
    const double s = bits & sign() ? -1 : 1;
    if (IsNaN(bits)) return std::numeric_limits<double>::quiet_NaN();
    if (magnitude > largest) return s * std::numeric_limits<double>::infinity();
    const int exponent = static_cast<int>(magnitude >> mantissa_bits);
    const double mantissa = magnitude & ((1u << mantissa_bits) - 1);
    const double unit = std::ldexp(1.0, -mantissa_bits);
    if (exponent == 0) return s * std::ldexp(mantissa * unit, 1 - bias);
    return s * std::ldexp(1 + mantissa * unit, exponent - bias);
  }
  float Decode(std::uint32_t bits) const {
    switch (dtype) {
      case DType::kF16:
        return F16ToFloat(static_cast<std::uint16_t>(bits));
      case DType::kBF16:
        return BF16ToFloat(static_cast<std::uint16_t>(bits));
      case DType::kF8E4M3:
        return F8E4M3ToFloat(static_cast<std::uint8_t>(bits));
      default:
        return F8E5M2ToFloat(static_cast<std::uint8_t>(bits));
    }
  }
  std::uint32_t Encode(float x) const {
    switch (dtype) {
      case DType::kF16:
        return FloatToF16(x);
      case DType::kBF16:
        return FloatToBF16(x);
      case DType::kF8E4M3:
        return FloatToF8E4M3(x);
      default:
        return FloatToF8E5M2(x);
    }
  }
};

constexpr Format kFormats[] = {
    {DType::kF16, 5, 10, 15, true, 0x7bff, 0x7e00, false},
    {DType::kBF16, 8, 7, 127, true, 0x7f7f, 0x7fc0, false},
    {DType::kF8E4M3, 4, 3, 7, false, 0x7e, 0x7f, true},
    {DType::kF8E5M2, 5, 2, 15, true, 0x7b, 0x7e, true},
};

TEST(DType, EveryCodeDecodesToItsExactValue) {
  for (const Format& f : kFormats) {
    for (std::uint32_t bits = 0; bits < f.codes(); ++bits) {
      const double expected = f.Value(bits);
      const float got = f.Decode(bits);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(got)) << Name(f.dtype) << " " << bits;
      } else {
        ASSERT_EQ(static_cast<double>(got), expected) << Name(f.dtype) << " " << bits;
        ASSERT_EQ(std::signbit(got), (bits & f.sign()) != 0) << Name(f.dtype) << " " << bits;
      }
    }
  }
}

TEST(DType, EveryFiniteCodeComesBackFromItsValue) {
  for (const Format& f : kFormats) {
    for (std::uint32_t bits = 0; bits < f.codes(); ++bits) {
      if (f.IsNaN(bits)) {
        ASSERT_EQ(f.Encode(f.Decode(bits)), f.canonical_nan) << Name(f.dtype) << " " << bits;
      } else if (std::isinf(f.Decode(bits)) && f.saturates) {
        ASSERT_EQ(f.Encode(f.Decode(bits)), (bits & f.sign()) | f.largest) << Name(f.dtype) << " " << bits;
      } else {
        ASSERT_EQ(f.Encode(f.Decode(bits)), bits) << Name(f.dtype);
      }
    }
  }
}

TEST(DType, MidpointsRoundToEvenAndTheirNeighboursToTheNearer) {
  for (const Format& f : kFormats) {
    for (std::uint32_t low = 0; low < f.largest; ++low) {
      const std::uint32_t high = low + 1;
      const auto middle = static_cast<float>((f.Value(low) + f.Value(high)) / 2);
      ASSERT_EQ(static_cast<double>(middle), (f.Value(low) + f.Value(high)) / 2);
      const std::uint32_t even = low % 2 == 0 ? low : high;
      for (const std::uint32_t sign : {0u, f.sign()}) {
        const float s = sign != 0 ? -1.0f : 1.0f;
        ASSERT_EQ(f.Encode(s * middle), sign | even) << Name(f.dtype) << " above " << low;
        ASSERT_EQ(f.Encode(s * std::nextafter(middle, 0.0f)), sign | low) << Name(f.dtype) << " above " << low;
        ASSERT_EQ(f.Encode(s * std::nextafter(middle, kInf)), sign | high) << Name(f.dtype) << " above " << low;
      }
    }
  }
}

TEST(DType, F16AndBf16OverflowToInfinityFromHalfAStepAboveTheLargest) {
  EXPECT_EQ(FloatToF16(65504.0f), 0x7bff);
  EXPECT_EQ(FloatToF16(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(FloatToF16(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToF16(-65520.0f), 0xfc00);
  EXPECT_EQ(FloatToF16(3e38f), 0x7c00);
  EXPECT_EQ(FloatToF16(kInf), 0x7c00);
  EXPECT_EQ(FloatToBF16(std::bit_cast<float>(0x7f7f7fffu)), 0x7f7f);
  EXPECT_EQ(FloatToBF16(std::bit_cast<float>(0x7f7f8000u)), 0x7f80);
  EXPECT_EQ(FloatToBF16(-kInf), 0xff80);
}

TEST(DType, Fp8SaturatesInfinityIncluded) {
  for (const float x : {449.0f, 464.0f, 480.0f, 1e30f, kInf}) {
    EXPECT_EQ(FloatToF8E4M3(x), 0x7e) << x;
    EXPECT_EQ(FloatToF8E4M3(-x), 0xfe) << x;
  }
  for (const float x : {57345.0f, 61440.0f, 65536.0f, 1e30f, kInf}) {
    EXPECT_EQ(FloatToF8E5M2(x), 0x7b) << x;
    EXPECT_EQ(FloatToF8E5M2(-x), 0xfb) << x;
  }
  EXPECT_EQ(F8E4M3ToFloat(0x7e), 448.0f);
  EXPECT_EQ(F8E5M2ToFloat(0x7b), 57344.0f);
}

TEST(DType, EveryNanBecomesTheCanonicalOne) {
  for (const std::uint32_t bits : {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xff800001u, 0x7fffffffu, 0x7f80ffffu}) {
    const auto x = std::bit_cast<float>(bits);
    for (const Format& f : kFormats) EXPECT_EQ(f.Encode(x), f.canonical_nan) << Name(f.dtype) << " " << bits;
  }
}

TEST(DType, SmallestFloatsRoundToSignedZero) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  for (const Format& f : kFormats) {
    EXPECT_EQ(f.Encode(tiny), 0u) << Name(f.dtype);
    EXPECT_EQ(f.Encode(-tiny), f.sign()) << Name(f.dtype);
    EXPECT_EQ(f.Encode(-0.0f), f.sign()) << Name(f.dtype);
  }
}

TEST(DType, SizesAndNames) {
  const std::pair<const char*, std::size_t> expected[] = {{"f32", 4}, {"f16", 2}, {"bf16", 2}, {"f8e4m3", 1},
                                                          {"f8e5m2", 1}, {"i32", 4}, {"u8", 1}, {"bool", 1}};
  for (const auto& [name, size] : expected) {
    EXPECT_EQ(Name(ParseDType(name)), name);
    EXPECT_EQ(SizeOf(ParseDType(name)), size) << name;
  }
}

TEST(DType, UnknownNameIsAnErrorWithTheNearestOne) {
  try {
    ParseDType("bf6");
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), "dtype");
    EXPECT_EQ(e.value(), "\"bf6\"");
    EXPECT_NE(e.expected().find("nearest: bf16"), std::string::npos) << e.what();
  }
  EXPECT_THROW(ParseDType(""), Error);
}

TEST(DType, LoadAndStoreGoThroughTheElementType) {
  for (const DType t : {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2}) {
    alignas(8) unsigned char memory[32];
    std::memset(memory, 0x55, sizeof(memory));
    StoreFloat(memory, t, 3, -1.75f);
    EXPECT_EQ(LoadFloat(memory, t, 3), -1.75f) << Name(t);
    for (std::size_t byte = 0; byte < sizeof(memory); ++byte) {
      if (byte / SizeOf(t) == 3) continue;
      ASSERT_EQ(memory[byte], 0x55) << Name(t) << " byte " << byte;
    }
  }
}

}  // namespace
}  // namespace regard
