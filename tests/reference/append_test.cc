// Appending to a cache: what is stored, where, rotated how; and that attention then sees the stored values.
#include <gtest/gtest.h>

#include <complex>

#include "tests/reference/toy.h"

namespace regard::reference {
namespace {

using Index = std::int64_t;

constexpr Index kB = 2, kSq = 2, kSkv = 8, kHq = 4, kHkv = 2, kD = 6, kDv = 3, kNew = 2;

// A cache of 8 slots; the two sequences hold 3 and 5 keys and get 2 more.
struct Cache : Toy {
  Cache() : Toy(kB, kSq, kSkv, kHq, kHkv, kD, kDv) {
    args.k_new = Random({kB, kNew, kHkv, kD});
    args.v_new = Random({kB, kNew, kHkv, kDv});
    p.append = kNew;
    for (Index b = 0; b < kB; ++b) {
      Sequence& s = sequences[b];
      s.append_begin = s.rotary_base = 3 + 2 * b;
      s.append_count = kNew;
      s.seq_kv = s.append_begin + kNew;
      s.q_offset = s.seq_kv - kSq;
    }
  }
  // cos and sin of position * 10000^(-k / pairs).
  void AskRotary(Rotary style, Index pairs) {
    p.options.rotary = style;
    args.rotary_cos = Random({32, pairs});
    args.rotary_sin = Random({32, pairs});
    for (Index n = 0; n < 32; ++n)
      for (Index k = 0; k < pairs; ++k) {
        *args.rotary_cos->At<float>(n, k) = static_cast<float>(std::cos(Angle(n, k, pairs)));
        *args.rotary_sin->At<float>(n, k) = static_cast<float>(std::sin(Angle(n, k, pairs)));
      }
  }
  static double Angle(Index position, Index k, Index pairs) {
    return static_cast<double>(position) * std::pow(10000.0, -static_cast<double>(k) / static_cast<double>(pairs));
  }
};

TEST(Append, WritesTheNewTokensAndNothingElse) {
  Cache t;
  const Toy before(kB, kSq, kSkv, kHq, kHkv, kD, kDv);  // the same seed: the same cache
  AppendKv(t.p, t.args, t.sequences);
  for (Index b = 0; b < kB; ++b)
    for (Index j = 0; j < kSkv; ++j)
      for (Index h = 0; h < kHkv; ++h) {
        const Index token = j - t.sequences[b].append_begin;
        const bool fresh = token >= 0 && token < kNew;
        for (Index c = 0; c < kD; ++c) {
          EXPECT_EQ(*t.args.k.At<float>(b, j, h, c),
                    fresh ? *t.args.k_new->At<float>(b, token, h, c) : *before.args.k.At<float>(b, j, h, c));
        }
        for (Index c = 0; c < kDv; ++c) {
          EXPECT_EQ(*t.args.v.At<float>(b, j, h, c),
                    fresh ? *t.args.v_new->At<float>(b, token, h, c) : *before.args.v.At<float>(b, j, h, c));
        }
      }
}

TEST(Append, ThenAttentionEqualsAttentionOverTheConcatenation) {
  Cache t;
  t.p.options.causal = true;
  AppendKv(t.p, t.args, t.sequences);
  const Result appended = t.Run();
  for (Index b = 0; b < kB; ++b) {
    const Index old = t.sequences[b].append_begin, keys = old + kNew;
    Toy whole(1, kSq, keys, kHq, kHkv, kD, kDv);
    const Toy before(kB, kSq, kSkv, kHq, kHkv, kD, kDv);
    whole.p.options.causal = true;
    const auto join = [&](TensorView& to, const TensorView& cache, const TensorView& fresh) {
      const Index row = kHkv * cache.shape[3];
      std::copy_n(cache.At<float>(b, 0, 0, 0), old * row, to.At<float>(0, 0, 0, 0));
      std::copy_n(fresh.At<float>(b, 0, 0, 0), kNew * row, to.At<float>(0, old, 0, 0));
    };
    join(whole.args.k, before.args.k, *t.args.k_new);
    join(whole.args.v, before.args.v, *t.args.v_new);
    std::copy_n(before.args.q.At<float>(b, 0, 0, 0), kSq * kHq * kD, whole.args.q.At<float>(0, 0, 0, 0));
    const Result r = whole.Run();
    for (std::size_t n = 0; n < r.out.size(); ++n) EXPECT_EQ(r.out[n], appended.out[b * r.out.size() + n]);
    for (std::size_t n = 0; n < r.lse.size(); ++n) EXPECT_EQ(r.lse[n], appended.lse[b * r.lse.size() + n]);
  }
}

TEST(Append, PackedTokensOfUnequalCountsAndPickedCacheRows) {
  Cache t;
  t.args.k_new = t.Random({3, kHkv, kD});  // one token for sequence 0, two for sequence 1
  t.args.v_new = t.Random({3, kHkv, kDv});
  t.sequences[0].append_count = 1;
  t.sequences[1].new_row = 1;
  std::swap(t.sequences[0].kv_row, t.sequences[1].kv_row);
  AppendKv(t.p, t.args, t.sequences);
  EXPECT_EQ(*t.args.k.At<float>(1, 3, 1, 4), *t.args.k_new->At<float>(0, 1, 4));
  EXPECT_EQ(*t.args.k.At<float>(0, 5, 1, 4), *t.args.k_new->At<float>(1, 1, 4));
  EXPECT_EQ(*t.args.v.At<float>(0, 6, 0, 2), *t.args.v_new->At<float>(2, 0, 2));
}

TEST(Append, IntoPagesFollowsTheBlockTable) {
  Cache t;
  const TensorView table = t.Ints({3, 1, -1, 0, 4, 2});
  t.args.block_table = TensorView::Contiguous(table.data, DType::kI32, {2, 3});
  t.args.k = t.Random({5, kHkv, 3, kD});  // HND, three tokens a page
  t.args.v = t.Random({5, kHkv, 3, kDv});
  t.p.page_size = 3;
  t.p.layout = KvLayout::kHND;
  AppendKv(t.p, t.args, t.sequences);
  EXPECT_EQ(*t.args.k.At<float>(1, 1, 0, 2), *t.args.k_new->At<float>(0, 0, 1, 2));  // position 3: page 1, slot 0
  EXPECT_EQ(*t.args.k.At<float>(4, 0, 2, 5), *t.args.k_new->At<float>(1, 0, 0, 5));  // position 5: page 4, slot 2
  EXPECT_EQ(*t.args.v.At<float>(2, 1, 0, 1), *t.args.v_new->At<float>(1, 1, 1, 1));  // position 6: page 2, slot 0
}

TEST(Append, RotaryIsAComplexTurnOfEachPair) {
  for (const Rotary style : {Rotary::kInterleaved, Rotary::kHalf}) {
    for (const Index pairs : {2, 3}) {  // part of the head, and all of it
      Cache t;
      t.AskRotary(style, pairs);
      t.sequences[1].rotary_base = 11;  // rotary_seqlens
      AppendKv(t.p, t.args, t.sequences);
      for (Index b = 0; b < kB; ++b)
        for (Index token = 0; token < kNew; ++token)
          for (Index h = 0; h < kHkv; ++h) {
            const Index j = t.sequences[b].append_begin + token;
            for (Index k = 0; k < pairs; ++k) {
              const Index first = style == Rotary::kInterleaved ? 2 * k : k;
              const Index second = style == Rotary::kInterleaved ? 2 * k + 1 : k + pairs;
              const std::complex<double> x(*t.args.k_new->At<float>(b, token, h, first),
                                           *t.args.k_new->At<float>(b, token, h, second));
              const auto turned = x * std::polar(1.0, t.Angle(t.sequences[b].rotary_base + token, k, pairs));
              EXPECT_NEAR(*t.args.k.At<float>(b, j, h, first), turned.real(), 1e-6);
              EXPECT_NEAR(*t.args.k.At<float>(b, j, h, second), turned.imag(), 1e-6);
            }
            for (Index c = 2 * pairs; c < kD; ++c)
              EXPECT_EQ(*t.args.k.At<float>(b, j, h, c), *t.args.k_new->At<float>(b, token, h, c));
            EXPECT_EQ(*t.args.v.At<float>(b, j, h, 1), *t.args.v_new->At<float>(b, token, h, 1));
          }
    }
  }
}

// Turning q and k by base + shift leaves every score where it was.
TEST(Append, RotaryScoresDependOnDistanceOnly) {
  std::vector<double> before;
  for (const Index base : {0, 9}) {
    Cache t;
    t.AskRotary(Rotary::kHalf, 3);
    t.p.options.causal = true;
    for (Sequence& s : t.sequences) {
      s.append_begin = 0;
      s.seq_kv = kNew;
      s.q_offset = 0;
      s.rotary_base = base;
    }
    AppendKv(t.p, t.args, t.sequences);
    const Result r = t.Run();
    if (!before.empty()) {
      EXPECT_LT(Distance(r.out, before), 1e-5);
    }
    before = r.out;
  }
}

TEST(Append, QueriesTurnAtTheirOwnPositionOnlyWhereOrderMatters) {
  const auto run = [](bool causal, bool turn_by_hand) {
    Cache t;
    t.AskRotary(Rotary::kInterleaved, 3);
    t.p.options.causal = causal;
    AppendKv(t.p, t.args, t.sequences);
    if (turn_by_hand) {
      for (Index b = 0; b < kB; ++b)
        for (Index i = 0; i < kSq; ++i)
          for (Index h = 0; h < kHq; ++h)
            for (Index k = 0; k < 3; ++k) {
              float* x = t.args.q.At<float>(b, i, h, 2 * k);
              const Index position = t.sequences[b].rotary_base + (causal ? i : 0);
              const auto turned = std::complex<double>(x[0], x[1]) * std::polar(1.0, t.Angle(position, k, 3));
              x[0] = static_cast<float>(turned.real());
              x[1] = static_cast<float>(turned.imag());
            }
      t.p.options.rotary = Rotary::kNone;
    }
    return t.Run();
  };
  for (const bool causal : {false, true}) EXPECT_LT(Distance(run(causal, false), run(causal, true)), 1e-6);
}

TEST(Append, RotationIsRoundedOnceToSixteenBits) {
  Cache t;
  t.AskRotary(Rotary::kHalf, 3);
  t.p.dtype = t.p.kv_dtype = DType::kBF16;
  for (TensorView* x : {&t.args.q, &t.args.k, &t.args.v, &*t.args.k_new, &*t.args.v_new}) *x = t.As(*x, DType::kBF16);
  AppendKv(t.p, t.args, t.sequences);
  const auto load = [](const TensorView& x, Index b, Index j, Index h, Index c) {
    return LoadFloat(x.At(b, j, h, c), x.dtype, 0);
  };
  const float x1 = load(*t.args.k_new, 1, 1, 0, 2), x2 = load(*t.args.k_new, 1, 1, 0, 5);
  const float cos = *t.args.rotary_cos->At<float>(6, 2), sin = *t.args.rotary_sin->At<float>(6, 2);
  EXPECT_EQ(load(t.args.k, 1, 6, 0, 2), BF16ToFloat(FloatToBF16(x1 * cos - x2 * sin)));
  EXPECT_EQ(load(t.args.k, 1, 6, 0, 5), BF16ToFloat(FloatToBF16(x2 * cos + x1 * sin)));

  // q: attention must be that of a q rotated beforehand and stored in bf16.
  const Result rotated_inside = t.Run();
  for (Index b = 0; b < kB; ++b)
    for (Index i = 0; i < kSq; ++i)
      for (Index h = 0; h < kHq; ++h)
        for (Index k = 0; k < 3; ++k) {
          auto* x = t.args.q.At<std::uint16_t>(b, i, h, 0);
          const float q1 = BF16ToFloat(x[k]), q2 = BF16ToFloat(x[k + 3]);
          const float c = *t.args.rotary_cos->At<float>(3 + 2 * b, k), s = *t.args.rotary_sin->At<float>(3 + 2 * b, k);
          x[k] = FloatToBF16(q1 * c - q2 * s);
          x[k + 3] = FloatToBF16(q2 * c + q1 * s);
        }
  t.p.options.rotary = Rotary::kNone;
  EXPECT_EQ(Distance(t.Run(), rotated_inside), 0);
}

TEST(Append, Fp8CacheStoresValueOverDescaleSaturatedAndKeepsNan) {
  Cache t;
  t.p.kv_dtype = DType::kF8E4M3;
  t.args.k = t.As(t.args.k, DType::kF8E4M3);
  t.args.v = t.As(t.args.v, DType::kF8E4M3);
  t.args.k_descale = t.Floats({0.5, 1, 1, 1}, {kB, kHkv});
  t.args.v_descale = t.Floats({1, 4, 1, 1}, {kB, kHkv});
  *t.args.k_new->At<float>(0, 0, 0, 0) = 3;
  *t.args.k_new->At<float>(0, 0, 0, 1) = 300;  // 600 is past the largest, 448
  *t.args.k_new->At<float>(0, 0, 1, 0) = 17;   // a tie between 16 and 18: to even
  *t.args.v_new->At<float>(0, 0, 1, 0) = kNanF;
  *t.args.v_new->At<float>(0, 0, 1, 1) = -10;
  AppendKv(t.p, t.args, t.sequences);
  const auto stored = [](const TensorView& x, Index h, Index c) {
    return F8E4M3ToFloat(*x.At<std::uint8_t>(0, 3, h, c));
  };
  EXPECT_EQ(stored(t.args.k, 0, 0), 6);
  EXPECT_EQ(stored(t.args.k, 0, 1), 448);
  EXPECT_EQ(stored(t.args.k, 1, 0), 16);
  EXPECT_TRUE(std::isnan(stored(t.args.v, 1, 0)));
  EXPECT_EQ(stored(t.args.v, 1, 1), -2.5);
}

TEST(Append, TokensInTheCachesOwnFp8TypeAreStoredAsTheyAre) {
  Cache t;
  t.p.dtype = t.p.kv_dtype = DType::kF8E5M2;
  for (TensorView* x : {&t.args.k, &t.args.v, &*t.args.k_new, &*t.args.v_new}) *x = t.As(*x, DType::kF8E5M2);
  t.args.k_descale = t.args.v_descale = t.Floats({0.5, 2, 4, 8}, {kB, kHkv});
  AppendKv(t.p, t.args, t.sequences);
  for (Index h = 0; h < kHkv; ++h) {
    EXPECT_EQ(*t.args.k.At<std::uint8_t>(0, 3, h, 1), *t.args.k_new->At<std::uint8_t>(0, 0, h, 1));
    EXPECT_EQ(*t.args.v.At<std::uint8_t>(1, 6, h, 2), *t.args.v_new->At<std::uint8_t>(1, 1, h, 2));
  }
}

}  // namespace
}  // namespace regard::reference
