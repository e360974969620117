// Visible ranges against the predicate of docs/semantics.md, step 5, pair by pair.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "regard/status.h"
#include "src/problem/extent.h"
#include "src/problem/lengths.h"

namespace regard {
namespace {

bool Visible(const AttentionOptions& o, const Sequence& s, std::int64_t i, std::int64_t j) {
  const std::int64_t p = i + s.q_offset;
  if (j < 0 || j >= s.seq_kv || j < s.leftpad) return false;
  if (o.causal && j > p) return false;
  if (o.window_left && j < p - *o.window_left) return false;
  if (o.window_right && j > p + *o.window_right) return false;
  if (o.chunk) {
    const auto c = static_cast<double>(*o.chunk);
    const double start = static_cast<double>(s.leftpad) + std::floor(static_cast<double>(p - s.leftpad) / c) * c;
    if (static_cast<double>(j) < start || static_cast<double>(j) >= start + c) return false;
  }
  return true;
}

std::string Describe(const AttentionOptions& o, const Sequence& s) {
  Problem p;
  p.options = o;
  return Print(p) + " seq_q " + std::to_string(s.seq_q) + " seq_kv " + std::to_string(s.seq_kv) + " q_offset " +
         std::to_string(s.q_offset) + " leftpad " + std::to_string(s.leftpad);
}

void CheckSequence(const AttentionOptions& o, const Sequence& s) {
  double pairs = 0;
  KeyRange before{std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::min()};
  for (std::int64_t i = 0; i < s.seq_q; ++i) {
    const KeyRange range = VisibleKeys(o, s, i);
    for (std::int64_t j = -2; j < s.seq_kv + 3; ++j) {
      const bool visible = Visible(o, s, i, j);
      ASSERT_EQ(visible, j >= range.begin && j < range.end) << Describe(o, s) << " i " << i << " j " << j;
      pairs += visible;
    }
    ASSERT_GE(range.begin, before.begin) << Describe(o, s) << " i " << i;
    ASSERT_GE(range.end, before.end) << Describe(o, s) << " i " << i;
    before = range;
  }
  ASSERT_EQ(VisiblePairs(o, s), pairs) << Describe(o, s);
}

TEST(Extent, RangesAndPairsAgreeWithThePredicateOverAGrid) {
  using Side = std::optional<std::int64_t>;
  int cases = 0;
  for (const bool causal : {false, true}) {
    for (const Side left : {Side(), Side(0), Side(2), Side(30)}) {
      for (const Side right : {Side(), Side(0), Side(3), Side(30)}) {
        for (const Side chunk : {Side(), Side(1), Side(4), Side(100)}) {
          AttentionOptions o;
          o.causal = causal;
          o.window_left = left;
          o.window_right = right;
          o.chunk = chunk;
          for (const std::int64_t seq_q : {0, 1, 5, 17}) {
            for (const std::int64_t seq_kv : {0, 1, 9, 17}) {
              const std::int64_t offsets[] = {seq_kv - seq_q, 0, -9, 21};
              for (const std::int64_t q_offset : offsets) {
                for (const std::int64_t leftpad : {0, 3, 9}) {
                  if (leftpad > seq_kv) continue;
                  Sequence s;
                  s.rows = s.seq_q = seq_q;
                  s.seq_kv = seq_kv;
                  s.q_offset = q_offset;
                  s.leftpad = leftpad;
                  CheckSequence(o, s);
                  if (HasFatalFailure()) return;
                  ++cases;
                }
              }
            }
          }
        }
      }
    }
  }
  EXPECT_GT(cases, 10000);
}

TEST(Extent, EndsOfSixtyFourBitsDoNotWrap) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();
  Sequence s;
  s.rows = s.seq_q = 10;
  s.seq_kv = 10;
  AttentionOptions o;
  o.window_left = kMax;
  o.window_right = kMax;
  o.chunk = kMax;
  EXPECT_EQ(VisibleKeys(o, s, 9), (KeyRange{0, 10}));
  EXPECT_EQ(VisiblePairs(o, s), 100);
  for (const std::int64_t chunk : {std::int64_t{1}, std::int64_t{7}, kMax}) {
    o.chunk = chunk;
    o.window_left = 3;
    for (const std::int64_t q_offset : {kMin, kMax - 20}) {
      s.q_offset = q_offset;
      EXPECT_TRUE(VisibleKeys(o, s, 5).empty());
      EXPECT_EQ(VisiblePairs(o, s), 0);
    }
  }
  s.seq_kv = kMax;
  s.q_offset = 0;
  EXPECT_EQ(VisibleKeys(AttentionOptions{}, s, 5), (KeyRange{0, kMax}));
  EXPECT_EQ(VisiblePairs(AttentionOptions{}, s), 10 * static_cast<double>(kMax));
}

TEST(Extent, PairsOfLongSequencesNeedNoLoopOverRows) {
  Sequence s;
  s.rows = s.seq_q = s.seq_kv = std::int64_t{1} << 40;
  AttentionOptions o;
  o.causal = true;
  EXPECT_EQ(VisiblePairs(o, s), std::ldexp(1.0, 79) + std::ldexp(1.0, 39));
  o.window_left = 1023;
  EXPECT_EQ(VisiblePairs(o, s), std::ldexp(1.0, 50) - 1024.0 * 1023 / 2);
  o.window_left.reset();
  o.chunk = std::int64_t{1} << 30;
  EXPECT_EQ(VisiblePairs(o, s), 1024 * (std::ldexp(1.0, 59) + std::ldexp(1.0, 29)));
}

TEST(Extent, ProblemPairsSumOverTheBatch) {
  EXPECT_EQ(VisiblePairs(ParseProblem("b=3 sq=4 skv=6 hq=8")), 72);
  EXPECT_EQ(VisiblePairs(ParseProblem("b=3 sq=4 skv=6 causal")), 3 * (3 + 4 + 5 + 6));
  EXPECT_EQ(VisiblePairs(ParseProblem("b=0 sq=4 skv=6")), 0);
  EXPECT_EQ(VisiblePairs(ParseProblem("b=1000000000000 sq=1 skv=1")), 1e12);
  EXPECT_EQ(VisiblePairs(ParseProblem("decode lens=10,20*2 causal")), 50);
  EXPECT_EQ(VisiblePairs(ParseProblem("mixed qlens=5,1 lens=5,7 causal")), 15 + 7);
}

TEST(Extent, ProblemPairsUseTheLengthsThatCasesUse) {
  const Problem p = ParseProblem("b=20 skv=1000 sq=3 lens=uniform(10,1000) seed=5");
  double pairs = 0;
  for (const std::int64_t length : KeyLengths(p)) pairs += 3 * static_cast<double>(length);
  EXPECT_EQ(VisiblePairs(p), pairs);
}

TEST(Extent, ProblemPairsRefuseListsOfTheWrongCount) {
  EXPECT_THROW(VisiblePairs(ParseProblem("b=3 lens=5,6")), Error);
}

}  // namespace
}  // namespace regard
