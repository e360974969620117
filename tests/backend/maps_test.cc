// AttentionProbabilities and DropoutMask against attention itself, the written rule and their limits.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/cases/cases.h"
#include "src/problem/sequence.h"
#include "src/reference/reference.h"

namespace regard {
namespace {

cases::Case CaseOf(const std::string& text) { return cases::MakeCase(ParseProblem(text)); }

// The longest lengths of the call: extents of the maps.
Problem ExactOf(const cases::Case& c) {
  AttentionArgs a = c.args();
  a.lse.reset();
  return ProblemOf(a, c.problem().options);
}

std::vector<Sequence> SequencesOf(const cases::Case& c) {
  std::vector<Sequence> s(static_cast<std::size_t>(c.problem().batch));
  ResolveArgs(c.problem(), c.args(), true, s, {});
  return s;
}

const char* const kCases[] = {
    "prefill b=2 sq=9 skv=17 hq=4 hkv=2 d=8 dtype=f32 causal",
    "prefill b=2 sq=9 skv=17 hq=4 hkv=2 d=8 dv=5 dtype=bf16 window=3,2 softcap=2 sink alibi seed=4",
    "decode lens=20,3,0 sq=2 hq=3 hkv=1 d=8 dtype=f16 varlen dropout=0.3 causal leftpad",
    "mixed lens=40,14,9 qlens=20,1,6 hq=2 hkv=1 d=8 dtype=f32 page=4 dropout=0.5 mask=0.3 bias seed=6",
    "prefill sq=5 skv=7 hq=2 hkv=2 d=8 dtype=f32 qv scoremod maskmod",
};

// sum_j probability * kept / (1 - p) * v_j is what the reference puts out.
TEST(Maps, ProbabilitiesTimesTheMaskTimesValuesAreTheOutput) {
  for (const char* text : kCases) {
    SCOPED_TRACE(text);
    const cases::Case c = CaseOf(text);
    const Problem p = ExactOf(c);
    const OwnedTensor probabilities = AttentionProbabilities(c.args(), p.options);
    const OwnedTensor mask = DropoutMask(c.args(), p.options);
    ASSERT_EQ(probabilities.view().dtype, DType::kF32);
    ASSERT_EQ(mask.view().dtype, DType::kBool);
    for (const TensorView& view : {probabilities.view(), mask.view()}) {
      ASSERT_EQ(view.rank, 4);
      EXPECT_EQ(view.shape[0], p.batch);
      EXPECT_EQ(view.shape[1], p.heads_q);
      EXPECT_EQ(view.shape[2], p.seq_q);
      EXPECT_EQ(view.shape[3], p.seq_kv);
    }
    const std::vector<Sequence> sequences = SequencesOf(c);
    const reference::Result expected = reference::Forward(c.problem(), c.args(), sequences);
    const TensorView &q = c.args().q, &v = c.args().v;
    for (std::int64_t b = 0; b < p.batch; ++b) {
      const Sequence& s = sequences[static_cast<std::size_t>(b)];
      for (std::int64_t h = 0; h < p.heads_q; ++h) {
        for (std::int64_t i = 0; i < p.seq_q; ++i) {
          std::vector<double> out(static_cast<std::size_t>(p.head_dim_v));
          for (std::int64_t j = 0; j < p.seq_kv; ++j) {
            const double probability = *probabilities.view().At<float>(b, h, i, j);
            const bool kept = *mask.view().At<bool>(b, h, i, j);
            const bool exists = i < s.seq_q && j < s.seq_kv && j >= s.leftpad;
            if (!exists) {
              ASSERT_EQ(probability, 0) << b << " " << h << " " << i << " " << j;
              ASSERT_FALSE(kept) << b << " " << h << " " << i << " " << j;
              continue;
            }
            ASSERT_TRUE(kept || p.options.dropout > 0);
            const std::int64_t at = KvTokenOffset(p, c.args(), s, v, j) + h / p.Group() * KvHeadStride(p, v);
            for (std::int64_t n = 0; n < p.head_dim_v; ++n) {
              out[static_cast<std::size_t>(n)] +=
                  probability * kept / (1 - p.options.dropout) * LoadFloat(v.data, v.dtype, at + n);
            }
          }
          if (i >= s.seq_q) continue;
          const std::int64_t row = q.rank == 3 ? s.q_row + i : b * q.shape[1] + i;
          for (std::int64_t n = 0; n < p.head_dim_v; ++n) {
            ASSERT_NEAR(out[static_cast<std::size_t>(n)],
                        expected.out[static_cast<std::size_t>((row * p.heads_q + h) * p.head_dim_v + n)], 1e-5);
          }
        }
      }
    }
  }
}

TEST(Maps, TheMaskIsTheWrittenRuleAlsoWhereNothingIsSeen) {
  const cases::Case c = CaseOf("prefill b=2 sq=4 skv=11 hq=3 hkv=1 d=4 dtype=f32 causal dropout=0.4");
  AttentionArgs a = c.args();
  a.dropout_seed = 0x123456789abcdef0;
  a.dropout_offset = 0xfedcba9800000005;
  const OwnedTensor mask = DropoutMask(a, c.problem().options);
  const auto threshold = static_cast<std::uint32_t>(0.4 * 4294967296.0);
  for (std::uint32_t b = 0; b < 2; ++b) {
    for (std::uint32_t h = 0; h < 3; ++h) {
      for (std::uint32_t i = 0; i < 4; ++i) {
        for (std::uint32_t j = 0; j < 11; ++j) {
          const std::uint32_t word =
              reference::Philox4x32(j / 4, i + 7, b * 3 + h, 5, 0x123456789abcdef0 ^ 0xfedcba9800000000).v[j % 4];
          EXPECT_EQ(*mask.view().At<bool>(b, h, i, j), word >= threshold);
        }
      }
    }
  }
}

TEST(Maps, DropoutOneKeepsNothing) {
  const cases::Case c = CaseOf("prefill sq=4 skv=11 hq=1 hkv=1 d=4 dtype=f32 dropout=1");
  const OwnedTensor mask = DropoutMask(c.args(), c.problem().options);
  for (std::int64_t n = 0; n < mask.view().Elements(); ++n) EXPECT_FALSE(static_cast<const bool*>(mask.view().data)[n]);
}

TEST(Maps, ARowOfNanScoresHasNanAtTheKeysThatItSees) {
  cases::Case c = CaseOf("prefill sq=4 skv=4 hq=1 hkv=1 d=4 dtype=f32 causal");
  StoreFloat(c.args().q.data, DType::kF32, 1 * 4, std::numeric_limits<float>::quiet_NaN());  // row 1
  const OwnedTensor probabilities = AttentionProbabilities(c.args(), c.problem().options);
  for (std::int64_t i = 0; i < 4; ++i) {
    for (std::int64_t j = 0; j < 4; ++j) {
      const float x = *probabilities.view().At<float>(0, 0, i, j);
      EXPECT_EQ(std::isnan(x), i == 1 && j <= 1) << i << " " << j;
      EXPECT_TRUE(j <= i || x == 0) << i << " " << j;
    }
  }
}

TEST(Maps, EmptySequencesGiveEmptyMaps) {
  for (const char* text : {"prefill sq=0 skv=5 hq=2 hkv=1 d=4 dtype=f32 dropout=0.5",
                           "prefill sq=3 skv=0 hq=2 hkv=1 d=4 dtype=f32",
                           "prefill b=0 sq=3 skv=4 hq=2 hkv=1 d=4 dtype=f32"}) {
    const cases::Case c = CaseOf(text);
    EXPECT_EQ(AttentionProbabilities(c.args(), c.problem().options).view().Elements(), 0) << text;
    EXPECT_EQ(DropoutMask(c.args(), c.problem().options).view().Elements(), 0) << text;
  }
}

TEST(Maps, OutAndLseAreNeitherNeededNorWritten) {
  const cases::Case c = CaseOf("prefill sq=4 skv=4 hq=1 hkv=1 d=4 dtype=f32 lse dropout=0.5");
  const float before = *c.args().out.At<float>(0, 0, 0, 0);
  AttentionArgs bare = c.args();
  bare.out = {};
  bare.lse.reset();
  const OwnedTensor with = AttentionProbabilities(c.args(), c.problem().options);
  const OwnedTensor without = AttentionProbabilities(bare, c.problem().options);
  EXPECT_EQ(std::memcmp(with.view().data, without.view().data, 4 * 16), 0);
  EXPECT_EQ(std::memcmp(&before, c.args().out.data, 4), 0);
}

Error ErrorOf(const AttentionArgs& a, bool mask) {
  try {
    mask ? DropoutMask(a) : AttentionProbabilities(a);
  } catch (const Error& e) {
    return e;
  }
  return Error("none", "", "");
}

// The limit is met before anything is allocated: these views borrow a few bytes by strides of 0.
TEST(Maps, MoreThan256MiBIsRefusedWithTheSizeAndTheLimit) {
  std::vector<float> memory(64);
  AttentionArgs a;
  a.q = a.k = a.v = TensorView::Contiguous(memory.data(), DType::kF32, {1, 1, 2, 8});
  a.q.shape[1] = a.k.shape[1] = a.v.shape[1] = 1 << 14;
  a.q.stride[1] = a.k.stride[1] = a.v.stride[1] = 0;
  const Error wide = ErrorOf(a, false);
  EXPECT_EQ(wide.field(), "probabilities");
  EXPECT_EQ(wide.value(), "(1, 2, 16384, 16384) of f32, 2048 MiB");
  EXPECT_EQ(wide.expected(), "at most 256 MiB: fewer sequences, heads, queries or keys");
  EXPECT_EQ(ErrorOf(a, true).value(), "(1, 2, 16384, 16384) of bool, 512 MiB");
  a.q.shape[1] = a.k.shape[1] = a.v.shape[1] = std::int64_t{1} << 40;
  EXPECT_EQ(ErrorOf(a, true).field(), "dropout mask");
}

TEST(Maps, AnAppendIsRefused) {
  const cases::Case c = CaseOf("decode lens=20,9 sq=1 hq=2 hkv=1 d=8 dtype=f32 append=1");
  EXPECT_EQ(ErrorOf(c.args(), false).field(), "k_new");
  EXPECT_EQ(ErrorOf(c.args(), true).field(), "k_new");
}

TEST(Maps, BadArgumentsAreRefusedAsByAttention) {
  const cases::Case c = CaseOf("prefill sq=4 skv=4 hq=2 hkv=1 d=4 dtype=f32");
  AttentionArgs a = c.args();
  a.sink = TensorView::Contiguous(a.q.data, DType::kF32, {3});
  EXPECT_EQ(ErrorOf(a, false).field(), "sink.shape[0]");
}

}  // namespace
}  // namespace regard
