// Generated cases: legal, repeatable, the same numbers in every layout, poison wherever no sequence looks.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "regard/device.h"
#include "src/cases/cases.h"
#include "src/cases/grid.h"

namespace regard::cases {
namespace {

std::vector<Sequence> Resolve(const Case& made) {
  std::vector<Sequence> sequences(static_cast<std::size_t>(made.problem().batch));
  std::vector<std::byte> scratch(ResolveScratchBytes(made.problem()));
  ResolveArgs(made.problem(), made.args(), true, sequences, scratch);
  return sequences;
}

// Key j of sequence b, head h: its first `n` elements.
std::vector<float> KeyOf(const Case& made, std::int64_t b, std::int64_t j, std::int64_t h, const TensorView& kv) {
  const Sequence s = Resolve(made)[static_cast<std::size_t>(b)];
  const std::int64_t at = KvTokenOffset(made.problem(), made.args(), s, kv, j) + h * KvHeadStride(made.problem(), kv);
  std::vector<float> row;
  for (std::int64_t c = 0; c < kv.shape[kv.rank - 1]; ++c) row.push_back(LoadFloat(kv.data, kv.dtype, at + c));
  return row;
}

std::int64_t CountNans(const TensorView& view) {
  std::int64_t nans = 0;
  for (std::int64_t n = 0; n < view.Elements(); ++n) nans += std::isnan(LoadFloat(view.data, view.dtype, n));
  return nans;
}

TEST(MakeCase, EveryCaseOfTheQuickGridPassesTheArgumentChecks) {
  for (const Problem& p : Grid(GridSize::kQuick)) {
    SCOPED_TRACE(Print(p));
    ASSERT_NO_THROW(Resolve(MakeCase(p)));
  }
}

TEST(MakeCase, SameProblemGivesTheSameBytes) {
  const Problem p = ParseProblem("decode b=3 lens=uniform(5,90) sq=1 hq=4 hkv=2 d=24 dtype=bf16 page=4 bias mask sink");
  const Case a = MakeCase(p), b = MakeCase(p);
  for (const auto view : {&AttentionArgs::q, &AttentionArgs::k, &AttentionArgs::v}) {
    EXPECT_EQ(Checksum(a.args().*view), Checksum(b.args().*view));
  }
  EXPECT_EQ(Checksum(*a.args().bias), Checksum(*b.args().bias));
  EXPECT_EQ(Checksum(*a.args().mask), Checksum(*b.args().mask));
  Problem other = p;
  other.seed = 3;
  EXPECT_NE(Checksum(a.args().q), Checksum(MakeCase(other).args().q));
}

TEST(MakeCase, AKeyIsTheSameInEveryLayout) {
  const std::string base = "decode lens=40,7,23 sq=2 hq=4 hkv=2 d=20 dv=12 dtype=f16 ";
  const Case dense = MakeCase(ParseProblem(base));
  for (const char* form : {"order=bhsd", "varlen", "page=1", "page=7 layout=HND", "page=16 table=csr placement=random",
                           "varlen page=5 layout=HND table=csr", "order=bhsd page=256 placement=random"}) {
    SCOPED_TRACE(form);
    const Case other = MakeCase(ParseProblem(base + form));
    for (const auto& [b, j, h] : {std::tuple{0, 0, 0}, {0, 39, 1}, {1, 6, 0}, {2, 22, 1}}) {
      EXPECT_EQ(KeyOf(dense, b, j, h, dense.args().k), KeyOf(other, b, j, h, other.args().k));
      EXPECT_EQ(KeyOf(dense, b, j, h, dense.args().v), KeyOf(other, b, j, h, other.args().v));
    }
  }
}

TEST(MakeCase, AppendedKeysAreThoseOfTheWholeSequence) {
  const std::string base = "decode lens=30,9 sq=4 hq=2 hkv=2 d=16 dtype=f32 ";
  const Case whole = MakeCase(ParseProblem(base));
  const Case append = MakeCase(ParseProblem(base + "append=4"));
  for (std::int64_t b = 0; b < 2; ++b) {
    const Sequence s = Resolve(append)[static_cast<std::size_t>(b)];
    EXPECT_EQ(s.append_count, 4);
    for (std::int64_t t = 0; t < 4; ++t) {
      EXPECT_TRUE(std::isnan(KeyOf(append, b, s.append_begin + t, 1, append.args().k)[0]));
      const std::vector<float> key = KeyOf(whole, b, s.append_begin + t, 1, whole.args().k);
      EXPECT_EQ(std::memcmp(append.args().k_new->At(b, t, 1), key.data(), key.size() * sizeof(float)), 0);
    }
  }
}

TEST(MakeCase, EverySlotThatNoSequenceOwnsHoldsNan) {
  const Case dense = MakeCase(ParseProblem("prefill lens=10,3 qlens=6,2 sq=8 skv=12 hq=2 hkv=1 d=8 dtype=bf16"));
  EXPECT_EQ(CountNans(dense.args().q), (2 + 6) * 2 * 8);
  EXPECT_EQ(CountNans(dense.args().k), (2 * (12 + 3) - 13) * 8);  // three slots beyond skv
  const Case paged = MakeCase(ParseProblem("decode lens=10,3 sq=1 hq=2 hkv=1 d=8 dtype=f16 kv=f8e4m3 page=4"));
  EXPECT_EQ(CountNans(paged.args().k), (paged.args().k.shape[0] * 4 - 13) * 8);
  EXPECT_EQ(CountNans(paged.args().out), paged.args().out.Elements());
  const Case padded = MakeCase(ParseProblem("decode b=4 sq=1 skv=100 hq=1 hkv=1 d=8 dtype=f32 leftpad"));
  std::int64_t pads = 0;
  for (const Sequence& s : Resolve(padded)) pads += s.leftpad;
  EXPECT_GT(pads, 0);
  EXPECT_EQ(CountNans(padded.args().v), pads * 8);
}

TEST(MakeCase, InputsHaveTheAskedDeviation) {
  const Case made = MakeCase(ParseProblem("prefill sq=256 skv=256 hq=4 hkv=4 d=64 dtype=f32 qscale=16"));
  const auto moments = [](const TensorView& view) {
    double sum = 0, squares = 0;
    for (std::int64_t n = 0; n < view.Elements(); ++n) {
      const double x = LoadFloat(view.data, view.dtype, n);
      sum += x;
      squares += x * x;
    }
    const auto count = static_cast<double>(view.Elements());
    return std::pair{sum / count, std::sqrt(squares / count)};
  };
  const auto [q_mean, q_deviation] = moments(made.args().q);
  const auto [k_mean, k_deviation] = moments(made.args().k);
  EXPECT_NEAR(q_mean, 0, 0.5);
  EXPECT_NEAR(q_deviation, 16, 0.3);
  EXPECT_NEAR(k_mean, 0, 0.03);
  EXPECT_NEAR(k_deviation, 1, 0.02);
}

TEST(MakeCase, RandomPlacementUsesEachPageOnceFromALargerPool) {
  const Case made = MakeCase(ParseProblem("decode lens=100,57 sq=1 hq=1 hkv=1 d=8 dtype=f32 page=4 placement=random table=csr"));
  const auto* pages = static_cast<const std::int32_t*>(made.args().kv_indices->data);
  const std::int64_t used = made.args().kv_indices->shape[0];
  EXPECT_EQ(used, 25 + 15);
  EXPECT_EQ(std::set<std::int32_t>(pages, pages + used).size(), static_cast<std::size_t>(used));
  EXPECT_GE(made.args().k.shape[0], 2 * used);
  EXPECT_FALSE(std::is_sorted(pages, pages + used));
}

TEST(MakeCase, RandomPoolOfALargeCacheIsEightTimesTheLastLevelCache) {
  const std::int64_t l3 = DeviceCaps::Host().l3_bytes;
  const std::int64_t tokens = l3 / 4 / 1024;  // k and v: 1 KiB a token, a quarter of the cache
  if (8 * l3 > (std::int64_t{1} << 30)) GTEST_SKIP() << "the pool would take more than 1 GiB";
  const Case made = MakeCase(ParseProblem("decode sq=1 skv=" + std::to_string(tokens) +
                                          " hq=2 hkv=2 d=128 dtype=bf16 page=16 placement=random"));
  const std::int64_t bytes = 2 * made.args().k.Elements() * 2;
  EXPECT_GE(bytes, 8 * l3);
}

TEST(MakeCase, EvenSeedsDrawTheRarerForms) {
  const Case odd = MakeCase(ParseProblem("decode b=2 sq=1 skv=40 hq=2 hkv=1 d=16 dtype=bf16 append=1 sink seed=3"));
  const Case even = MakeCase(ParseProblem("decode b=2 sq=1 skv=40 hq=2 hkv=1 d=16 dtype=bf16 append=1 sink seed=4"));
  EXPECT_FALSE(odd.args().cache_batch_idx);
  EXPECT_TRUE(even.args().cache_batch_idx);
  EXPECT_EQ(odd.args().sink->dtype, DType::kF32);
  EXPECT_EQ(even.args().sink->dtype, DType::kBF16);
}

TEST(MakeCase, RefusesMoreMemoryThanAllowed) {
  const Problem p = ParseProblem("decode sq=1 skv=1000000 hq=8 hkv=8 d=128 dtype=bf16");
  try {
    MakeCase(p, std::size_t{64} << 20);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), "case");
    EXPECT_NE(std::string(e.what()).find("64 MiB"), std::string::npos) << e.what();
  }
  EXPECT_THROW(MakeCase(ParseProblem("prefill sq=1 skv=9007199254740991 hq=1 hkv=1 d=1 dtype=f32")), Error);
  EXPECT_THROW(MakeCase(ParseProblem("decode sq=1 skv=9 hq=1 hkv=1 d=1 dtype=f32 append=1 rotary=half")), Error);
}

TEST(MakeCase, ACloneHasTheSameBytesElsewhere) {
  const Case made = MakeCase(ParseProblem("decode lens=9,30 sq=3 hq=2 hkv=1 d=16 dtype=f16 page=4 bias lse append=3"));
  const Case clone = made.Clone();
  EXPECT_NE(made.args().k.data, clone.args().k.data);
  EXPECT_NE(made.args().block_table->data, clone.args().block_table->data);
  EXPECT_EQ(Checksum(made.args().k), Checksum(clone.args().k));
  EXPECT_EQ(Checksum(*made.args().k_new), Checksum(*clone.args().k_new));
  EXPECT_NO_THROW(Resolve(clone));
  std::memset(clone.args().k.data, 0, 16);
  EXPECT_NE(Checksum(made.args().k), Checksum(clone.args().k));
}

TEST(Checksum, CountsElementsAndNotTheirPlaces) {
  const std::string base = "prefill b=2 sq=5 skv=7 hq=3 hkv=3 d=3 dtype=f16";
  const Case bshd = MakeCase(ParseProblem(base)), bhsd = MakeCase(ParseProblem(base + " order=bhsd"));
  EXPECT_EQ(Checksum(bshd.args().q), Checksum(bhsd.args().q));
  const std::uint64_t before = Checksum(bshd.args().q);
  std::uint16_t* last = bshd.args().q.At<std::uint16_t>(1, 4, 2, 2);
  *last ^= 1;
  EXPECT_NE(Checksum(bshd.args().q), before);
  const float zeros[3] = {0, 0, 0};
  const auto sum = [&](std::int64_t n) {
    return Checksum(TensorView::Contiguous(const_cast<float*>(zeros), DType::kF32, {n}));
  };
  EXPECT_NE(sum(1), sum(2));
  EXPECT_NE(sum(2), sum(3));
  EXPECT_NE(sum(0), sum(1));
}

}  // namespace
}  // namespace regard::cases
