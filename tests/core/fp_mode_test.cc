// FpModeGuard under odd caller modes: flush-to-zero, denormals-are-zero, directed rounding.

#include "src/core/fp_mode.h"

#include <gtest/gtest.h>

#include <cfenv>
#include <cstdint>
#include <limits>

#include "regard/dtype.h"

namespace regard {
namespace {

volatile float g_one = 1.0f;
volatile float g_tiny = std::numeric_limits<float>::min();     // the smallest normal
volatile float g_denormal = std::numeric_limits<float>::min() / 4;
volatile float g_half_step = 5.9604644775390625e-8f;           // 2^-24: half a unit in the last place of 1

// What arithmetic shows of the mode in force.
struct Behaviour {
  bool flushes_results, flushes_inputs, rounds_up;
  bool operator==(const Behaviour&) const = default;
};

Behaviour Observe() {
  const volatile float halved = g_tiny * 0.5f;
  const volatile float scaled = g_denormal * 1024.0f * 1024.0f;
  const volatile float sum = g_one + g_half_step;
  return {halved == 0.0f, scaled == 0.0f, sum > g_one};
}

constexpr Behaviour kStrict{false, false, false};

#if defined(__x86_64__)
using Register = std::uint32_t;
constexpr Register kOddModes[] = {1u << 15, 1u << 6, 2u << 13, (1u << 15) | (1u << 6) | (2u << 13)};  // FTZ DAZ up all
Register ReadMode() { return _mm_getcsr(); }
void WriteMode(Register r) { _mm_setcsr(r); }
#elif defined(__aarch64__)
using Register = std::uint64_t;
constexpr Register kOddModes[] = {1ull << 24, 1ull << 22, (1ull << 24) | (1ull << 22)};  // FZ, up, both
Register ReadMode() {
  Register r;
  asm volatile("mrs %0, fpcr" : "=r"(r));
  return r;
}
void WriteMode(Register r) { asm volatile("msr fpcr, %0" ::"r"(r)); }
#endif

#if defined(__x86_64__) || defined(__aarch64__)
TEST(FpMode, GuardComputesStrictlyAndRestoresTheCallersMode) {
  const Register original = ReadMode();
  for (const Register odd : kOddModes) {
    WriteMode(original | odd);
    const Register before = ReadMode();
    const Behaviour outside = Observe();
    WriteMode(before);  // without the flags that Observe raised
    Behaviour inside;
    {
      const FpModeGuard guard;
      inside = Observe();
    }
    const Register after = ReadMode();
    const Behaviour outside_again = Observe();
    WriteMode(original);
    EXPECT_NE(outside, kStrict) << std::hex << odd;
    EXPECT_EQ(inside, kStrict) << std::hex << odd;
    EXPECT_EQ(after, before) << std::hex << odd;
    EXPECT_EQ(outside_again, outside) << std::hex << odd;
  }
}

TEST(FpMode, GuardsNest) {
  const Register original = ReadMode();
  WriteMode(original | kOddModes[0]);
  const Register odd = ReadMode();
  Behaviour after_inner;
  {
    const FpModeGuard outer;
    { const FpModeGuard inner; }
    after_inner = Observe();
  }
  const Register after = ReadMode();
  WriteMode(original);
  EXPECT_EQ(after_inner, kStrict);
  EXPECT_EQ(after, odd);
}

TEST(FpMode, ScalarConversionsDoNotDependOnTheMode) {
  const Register original = ReadMode();
  WriteMode(original | kOddModes[std::size(kOddModes) - 1]);
  const std::uint32_t f16 = FloatToF16(1.00048828125f);   // halfway between 1 and the next f16: to even
  const std::uint32_t bf16 = FloatToBF16(g_denormal);
  const float denormal = BF16ToFloat(0x0020);
  std::uint32_t denormal_bits;
  __builtin_memcpy(&denormal_bits, &denormal, sizeof(denormal_bits));
  WriteMode(original);
  EXPECT_EQ(f16, 0x3c00u);
  EXPECT_EQ(bf16, 0x0020u);
  EXPECT_EQ(denormal_bits, 0x00200000u);
}
#endif

#if defined(__x86_64__)
TEST(FpMode, GuardMasksTrapsAndLeavesNoFlagsBehind) {
  const Register original = ReadMode();
  constexpr Register kFlags = 0x3f;
  WriteMode(original & ~kFlags & ~(1u << 9));  // division by zero traps
  const Register before = ReadMode();
  {
    const FpModeGuard guard;
    volatile float zero = 0.0f;
    const volatile float infinite = 1.0f / zero;
    EXPECT_GT(infinite, 1e38f);
  }
  const Register after = ReadMode();
  WriteMode(original);
  EXPECT_EQ(after, before);
}
#endif

}  // namespace
}  // namespace regard
