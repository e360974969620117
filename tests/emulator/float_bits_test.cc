// Conversions of the kernels by integer arithmetic (base/float_bits.h) against those of the library (regard/dtype.h):
// every input of the small types, and f32 around every value at which a result changes. A NaN must give a NaN, of any
// pattern; everything else the same bits.
#include "base/float_bits.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>

#include "ptx/convert.h"
#include "regard/dtype.h"

namespace regard::cuda {
namespace {

bool SameFloat(float a, float b) {
  return (a != a && b != b) || BitsOf(a) == BitsOf(b);
}

TEST(FloatBits, EveryF16Widens) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const F16 x{static_cast<u16>(bits)};
    ASSERT_TRUE(SameFloat(WideF16Bits(x), F16ToFloat(x.bits))) << bits;
    ASSERT_TRUE(SameFloat(Wide(x), F16ToFloat(x.bits))) << bits;
  }
}

TEST(FloatBits, EveryBF16Widens) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const BF16 x{static_cast<u16>(bits)};
    ASSERT_TRUE(SameFloat(WideBF16(x), BF16ToFloat(x.bits))) << bits;
  }
}

TEST(FloatBits, EveryFp8WidensToF32AndToF16) {
  for (std::uint32_t bits = 0; bits < 0x100; ++bits) {
    const E4M3 a{static_cast<u8>(bits)};
    const E5M2 b{static_cast<u8>(bits)};
    ASSERT_TRUE(SameFloat(WideE4M3(a), F8E4M3ToFloat(a.bits))) << bits;
    ASSERT_TRUE(SameFloat(WideE5M2(b), F8E5M2ToFloat(b.bits))) << bits;
    ASSERT_TRUE(SameFloat(F16ToFloat(HalfOfE4M3(a).bits), F8E4M3ToFloat(a.bits))) << bits;
    ASSERT_TRUE(SameFloat(F16ToFloat(HalfOfE5M2(b).bits), F8E5M2ToFloat(b.bits))) << bits;
  }
}

TEST(FloatBits, PairsOfFp8BecomePairsOfF16) {
  for (std::uint32_t pair = 0; pair < 0x10000; ++pair) {
    const auto low = static_cast<std::uint8_t>(pair & 0xff), high = static_cast<std::uint8_t>(pair >> 8);
    const u32 a = HalvesOfE4M3(static_cast<u16>(pair)), b = HalvesOfE5M2(static_cast<u16>(pair));
    ASSERT_TRUE(SameFloat(F16ToFloat(static_cast<std::uint16_t>(a & 0xffff)), F8E4M3ToFloat(low))) << pair;
    ASSERT_TRUE(SameFloat(F16ToFloat(static_cast<std::uint16_t>(a >> 16)), F8E4M3ToFloat(high))) << pair;
    ASSERT_TRUE(SameFloat(F16ToFloat(static_cast<std::uint16_t>(b & 0xffff)), F8E5M2ToFloat(low))) << pair;
    ASSERT_TRUE(SameFloat(F16ToFloat(static_cast<std::uint16_t>(b >> 16)), F8E5M2ToFloat(high))) << pair;
  }
}

// All narrowings of one f32 agree with the library's.
::testing::AssertionResult Narrows(std::uint32_t bits) {
  const float x = FloatOf(bits);
  const bool nan = x != x;
  const auto differ = [&](const char* type, std::uint32_t got, std::uint32_t expected) {
    return ::testing::AssertionFailure() << type << " of f32 bits " << std::hex << bits << ": got " << got
                                         << " expected " << expected;
  };
  const u16 f16 = NarrowF16Bits(x).bits, bf16 = NarrowBF16(x).bits;
  const u8 e4m3 = NarrowE4M3Bits(x).bits, e5m2 = NarrowE5M2Bits(x).bits;
  if (nan) {
    if ((f16 & 0x7fff) <= 0x7c00) return differ("f16", f16, FloatToF16(x));
    if ((bf16 & 0x7fff) <= 0x7f80) return differ("bf16", bf16, FloatToBF16(x));
    if ((e4m3 & 0x7f) != 0x7f) return differ("e4m3", e4m3, FloatToF8E4M3(x));
    if ((e5m2 & 0x7f) <= 0x7c) return differ("e5m2", e5m2, FloatToF8E5M2(x));
    return ::testing::AssertionSuccess();
  }
  if (f16 != FloatToF16(x)) return differ("f16", f16, FloatToF16(x));
  if (bf16 != FloatToBF16(x)) return differ("bf16", bf16, FloatToBF16(x));
  if (e4m3 != FloatToF8E4M3(x)) return differ("e4m3", e4m3, FloatToF8E4M3(x));
  if (e5m2 != FloatToF8E5M2(x)) return differ("e5m2", e5m2, FloatToF8E5M2(x));
  return ::testing::AssertionSuccess();
}

// Around each multiple of 2^12 in the bits of an f32: bf16 keeps 7 bits of the fraction and f16 ten, so that every
// value of theirs, and every tie between two, is such a multiple (f16: of 2^13, ties of 2^12).
TEST(FloatBits, F32NarrowsAroundEveryValueAndTie) {
  for (std::uint64_t center = 0; center < (std::uint64_t{1} << 32); center += 0x1000) {
    for (const std::int64_t step : {-1, 0, 1}) {
      ASSERT_TRUE(Narrows(static_cast<std::uint32_t>(static_cast<std::int64_t>(center) + step)));
    }
  }
}

// Subnormals of f16 and fp8 have values and ties at smaller steps: every exponent, every single bit and every run of
// ones, and their neighbours.
TEST(FloatBits, F32NarrowsAroundTiesOfSubnormals) {
  for (std::uint32_t exponent = 0; exponent < 256; ++exponent) {
    for (int high = 0; high < 23; ++high) {
      for (int low = 0; low <= high; ++low) {
        const std::uint32_t one = (1u << high) | (1u << low), run = (2u << high) - (1u << low);
        for (const std::uint32_t fraction : {one, run}) {
          for (const std::uint32_t sign : {0u, 0x80000000u}) {
            for (const int step : {-1, 0, 1}) {
              ASSERT_TRUE(Narrows(sign + (exponent << 23) + (fraction & 0x7fffff) + static_cast<std::uint32_t>(step)));
            }
          }
        }
      }
    }
  }
}

TEST(FloatBits, RandomF32Narrow) {
  std::mt19937 random(7);
  for (int n = 0; n < 3000000; ++n) ASSERT_TRUE(Narrows(random()));
}

TEST(FloatBits, PairsPackLowFirst) {
  EXPECT_EQ(PackF16(1, -2), 0xc0003c00u);
  EXPECT_EQ(PackBF16(1, -2), 0xc0003f80u);
  EXPECT_EQ(NarrowBF16Fast(1).bits, 0x3f80);
  EXPECT_EQ(NarrowE4M3(1000).bits, 0x7e);
  EXPECT_EQ(NarrowE5M2(-1e9f).bits, 0xfb);
}

}  // namespace
}  // namespace regard::cuda
