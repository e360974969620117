// NaN and infinity: kept out of rows that do not see them, never hidden from rows that do.
#include <gtest/gtest.h>

#include <cfenv>

#include "tests/reference/toy.h"

namespace regard::reference {
namespace {

using Index = std::int64_t;

// Four queries over four keys, causal, one head: query i sees keys 0..i.
struct Causal : Toy {
  Causal() : Toy(1, 4, 4, 1, 1, 3, 2) { p.options.causal = true; }
};

TEST(ReferenceNonFinite, NanKeyReachesExactlyTheRowsThatSeeIt) {
  for (const Rounding rounding : {Rounding::kExact, Rounding::kLowPrecision}) {
    Causal t;
    const Result clean = t.Run(rounding);
    *t.args.k.At<float>(0, 2, 0, 1) = kNanF;
    const Result r = t.Run(rounding);
    for (Index i = 0; i < 4; ++i) {
      EXPECT_EQ(std::isnan(r.lse[i]), i >= 2) << i;
      for (Index c = 0; c < 2; ++c) {
        EXPECT_EQ(std::isnan(r.out[i * 2 + c]), i >= 2);
        if (i < 2) {
          EXPECT_EQ(r.out[i * 2 + c], clean.out[i * 2 + c]);
        }
      }
    }
  }
}

TEST(ReferenceNonFinite, NanValueReachesItsColumnOfTheRowsThatSeeIt) {
  Causal t;
  const Result clean = t.Run();
  *t.args.v.At<float>(0, 2, 0, 1) = kNanF;
  const Result r = t.Run();
  EXPECT_EQ(r.lse, clean.lse);
  for (Index i = 0; i < 4; ++i) {
    EXPECT_EQ(r.out[i * 2], clean.out[i * 2]);
    EXPECT_EQ(std::isnan(r.out[i * 2 + 1]), i >= 2);
  }
}

TEST(ReferenceNonFinite, NanQueryStaysInItsRow) {
  Causal t;
  *t.args.q.At<float>(0, 1, 0, 0) = kNanF;
  const Result r = t.Run();
  for (Index i = 0; i < 4; ++i) EXPECT_EQ(std::isnan(r.lse[i]), i == 1);
}

TEST(ReferenceNonFinite, MaskedKeysAndValuesMayHoldNan) {
  Causal t;
  t.args.mask = t.Bytes({1, 0, 1, 1}, DType::kU8, {1, 1, 1, 4});
  const Result clean = t.Run();
  for (Index c = 0; c < 3; ++c) *t.args.k.At<float>(0, 1, 0, c) = kNanF;
  for (Index c = 0; c < 2; ++c) *t.args.v.At<float>(0, 1, 0, c) = kNanF;
  EXPECT_EQ(Distance(t.Run(), clean), 0);
}

TEST(ReferenceNonFinite, PaddingMayHoldNan) {
  Causal t;
  t.sequences[0].seq_kv = 3;
  t.sequences[0].leftpad = 1;
  t.sequences[0].q_offset = -1;
  const Result clean = t.Run();
  for (const Index j : {0, 3}) {
    *t.args.k.At<float>(0, j, 0, 0) = kNanF;
    *t.args.v.At<float>(0, j, 0, 0) = kNanF;
  }
  EXPECT_EQ(Distance(t.Run(), clean), 0);
  EXPECT_EQ(clean.lse[0], -kInf);
}

TEST(ReferenceNonFinite, BiasOfMinusInfinityHidesKeyAndValue) {
  Causal t;
  t.args.mask = t.Bytes({1, 0, 1, 1}, DType::kU8, {1, 1, 1, 4});
  const Result masked = t.Run();
  t.args.mask = std::nullopt;
  t.args.bias = t.Floats({0, -std::numeric_limits<float>::infinity(), 0, 0}, {1, 1, 1, 4});
  *t.args.v.At<float>(0, 1, 0, 0) = kNanF;
  EXPECT_EQ(Distance(t.Run(), masked), 0);
}

TEST(ReferenceNonFinite, RowOfMinusInfinityScoresIsEmpty) {
  Causal t;
  t.args.bias = t.Floats({-std::numeric_limits<float>::infinity()}, {1, 1, 1, 1});
  Result r = t.Run();
  for (const double x : r.out) EXPECT_EQ(x, 0);
  for (const double x : r.lse) EXPECT_EQ(x, -kInf);
  t.args.sink = t.Floats({0.5f}, {1});
  r = t.Run();
  for (const double x : r.out) EXPECT_EQ(x, 0);
  for (const double x : r.lse) EXPECT_EQ(x, 0.5);
}

TEST(ReferenceNonFinite, ScoreOfPlusInfinityMakesTheRowNan) {
  Causal t;
  t.args.bias = t.Floats({0, 0, std::numeric_limits<float>::infinity(), 0}, {1, 1, 1, 4});
  const Result r = t.Run();
  for (Index i = 0; i < 4; ++i) {
    EXPECT_EQ(std::isnan(r.lse[i]), i >= 2);
    EXPECT_EQ(std::isnan(r.out[i * 2]), i >= 2);
  }
}

TEST(ReferenceNonFinite, HugeScoresDoNotOverflow) {
  Causal t;
  t.p.options.scale = 1e6;
  for (const double x : t.Run().out) EXPECT_TRUE(std::isfinite(x));
  for (const double x : t.Run(Rounding::kLowPrecision).lse) EXPECT_TRUE(std::isfinite(x));
}

TEST(ReferenceNonFinite, CallersRoundingModeChangesNothing) {
  Causal t;
  const Result expected = t.Run();
  std::fesetround(FE_UPWARD);
  const Result r = t.Run();
  const int mode = std::fegetround();
  std::fesetround(FE_TONEAREST);
  EXPECT_EQ(mode, FE_UPWARD);
  EXPECT_EQ(Distance(r, expected), 0);
}

}  // namespace
}  // namespace regard::reference
