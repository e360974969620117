// Which spills of registers are accepted.
#include "cli/known_spills.h"

#include <gtest/gtest.h>

namespace regard::cli {
namespace {

constexpr KnownSpill kListed[] = {{"sm80.prefill.*.d256*", 86, 100, "few registers"}, {"merge", 0, 8, "everywhere"}};

TEST(KnownSpills, AreAcceptedByNameArchitectureAndBytes) {
  EXPECT_EQ(SpillReason(kListed, "sm80.prefill.bf16.d256.options", 86, 100), "few registers");
  EXPECT_EQ(SpillReason(kListed, "sm80.prefill.bf16.d256.options", 86, 101), "") << "more than is listed";
  EXPECT_EQ(SpillReason(kListed, "sm80.prefill.bf16.d256.options", 80, 4), "") << "another architecture";
  EXPECT_EQ(SpillReason(kListed, "sm80.prefill.bf16.d128", 86, 4), "") << "another kernel";
  EXPECT_EQ(SpillReason(kListed, "merge", 75, 8), "everywhere");
  EXPECT_EQ(SpillReason(kListed, "merge", 75, 0), "") << "no spills, no reason";
  EXPECT_EQ(SpillReason({}, "merge", 75, 8), "");
}

TEST(KnownSpills, EveryListedOneSaysWhy) {
  for (const KnownSpill& spill : KnownSpills()) {
    EXPECT_FALSE(std::string(spill.reason).empty()) << spill.pattern;
    EXPECT_GT(spill.bytes, 0u) << spill.pattern;
  }
}

}  // namespace
}  // namespace regard::cli
