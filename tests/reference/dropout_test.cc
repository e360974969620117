// Philox against its published vectors; dropout by the written rule.
#include <gtest/gtest.h>

#include "tests/reference/toy.h"

namespace regard::reference {
namespace {

using Index = std::int64_t;

void ExpectWords(const Philox& r, std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  EXPECT_EQ(r.v[0], a);
  EXPECT_EQ(r.v[1], b);
  EXPECT_EQ(r.v[2], c);
  EXPECT_EQ(r.v[3], d);
}

// Known answers that Random123 ships for philox4x32 with 10 rounds.
TEST(Philox, GivesThePublishedWords) {
  ExpectWords(Philox4x32(0, 0, 0, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
  ExpectWords(Philox4x32(~0u, ~0u, ~0u, ~0u, ~0ull), 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd);
  ExpectWords(Philox4x32(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0x299f31d0a4093822), 0xd16cfe09, 0x94fdcceb,
              0x5001e420, 0x24126ea1);
}

// Equal scores and v = identity: out[c] is the dropped probability of key c itself, 1/n/(1-p) or 0.
struct Visible : Toy {
  static constexpr Index kKeys = 64;
  explicit Visible(double dropout, Index queries = 8) : Toy(2, queries, kKeys, 2, 1, 1, kKeys) {
    p.options.scale = 0;
    p.options.dropout = dropout;
    args.dropout_seed = 0x123456789abcdef0;
    args.dropout_offset = 0xfedcba9800000005;
    for (Index b = 0; b < 2; ++b)
      for (Index j = 0; j < kKeys; ++j)
        for (Index c = 0; c < kKeys; ++c) *args.v.At<float>(b, j, 0, c) = j == c;
  }
};

TEST(Dropout, KeepsWhatTheWrittenRuleKeeps) {
  const double p = 0.3;
  Visible t(p);
  t.sequences[1].leftpad = 3;
  const Result r = t.Run();
  const auto threshold = static_cast<std::uint32_t>(p * 4294967296.0);
  for (Index b = 0; b < 2; ++b)
    for (Index h = 0; h < 2; ++h)
      for (Index i = 0; i < 8; ++i)
        for (Index j = 0; j < 64; ++j) {
          const Index pad = t.sequences[b].leftpad, keys = 64 - pad;
          const auto jj = static_cast<std::uint32_t>(j - pad), pp = static_cast<std::uint32_t>(i + 56 - pad);
          const bool kept = j >= pad && Philox4x32(jj / 4, pp, static_cast<std::uint32_t>(b * 2 + h), 5,
                                                   0x123456789abcdef0 ^ 0xfedcba9800000000)
                                                .v[jj % 4] >= threshold;
          const double weight = kept ? 1.0 / static_cast<double>(keys) / (1 - p) : 0;
          ASSERT_NEAR(r.out[((b * 8 + i) * 2 + h) * 64 + j], weight, 1e-15);
        }
}

TEST(Dropout, KeepRateIsOneMinusP) {
  for (const double p : {0.1, 0.5, 0.9}) {
    Visible t(p, 64);
    const Result r = t.Run();
    double kept = 0;
    for (const double x : r.out) kept += x != 0;
    const double n = static_cast<double>(r.out.size());
    EXPECT_NEAR(kept / n, 1 - p, 5 * std::sqrt(p * (1 - p) / n));
  }
}

TEST(Dropout, LseIsThatOfTheUndroppedRow) {
  Visible none(0), some(0.5);
  EXPECT_EQ(none.Run().lse, some.Run().lse);
  EXPECT_GT(Distance(none.Run().out, some.Run().out), 0);
}

TEST(Dropout, OneGivesZeroAndKeepsLse) {
  Visible none(0), all(1);
  const Result r = all.Run();
  for (const double x : r.out) ASSERT_EQ(x, 0);
  EXPECT_EQ(r.lse, none.Run().lse);
}

TEST(Dropout, NeverDropsTheSink) {
  Visible none(0), some(0.5);
  for (Toy* t : {static_cast<Toy*>(&none), static_cast<Toy*>(&some)}) t->args.sink = t->Floats({1, 4}, {2});
  EXPECT_EQ(none.Run().lse, some.Run().lse);
  // A kept probability is that of the whole row, sink included, over 1 - p.
  const double probability = 1 / (64 + std::exp(1.0));
  for (Index c = 0; c < 64; ++c) {
    const double x = some.Run().out[c];
    if (x != 0) {
      EXPECT_NEAR(x, 2 * probability, 1e-15);
    }
  }
}

TEST(Dropout, RepeatsWithItsSeedAndMovesWithSeedAndOffset) {
  Visible t(0.5);
  const Result first = t.Run();
  EXPECT_EQ(t.Run().out, first.out);
  t.args.dropout_offset += 1;
  const Result moved = t.Run();
  EXPECT_NE(moved.out, first.out);
  t.args.dropout_offset += std::uint64_t{1} << 32;
  EXPECT_NE(t.Run().out, moved.out);
  t.args.dropout_offset = 0xfedcba9800000005;
  t.args.dropout_seed += 1;
  EXPECT_NE(t.Run().out, first.out);
}

}  // namespace
}  // namespace regard::reference
