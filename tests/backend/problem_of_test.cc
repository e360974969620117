// ProblemOf: exact lengths from every kind of table, phases, and calls that it must not trust.
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "regard/regard.h"

namespace regard {
namespace {

// Tensors of a call; memory lives as long as the Maker. Heads 4/2, D 8.
struct Maker {
  std::vector<std::unique_ptr<std::vector<std::byte>>> memory;
  TensorView Of(DType t, std::initializer_list<std::int64_t> shape) {
    TensorView v = TensorView::Contiguous(nullptr, t, shape);
    memory.push_back(std::make_unique<std::vector<std::byte>>(static_cast<std::size_t>(v.Elements()) * SizeOf(t) + 64));
    v.data = memory.back()->data();
    return v;
  }
  TensorView Ints(const std::vector<std::int32_t>& x) {
    TensorView v = Of(DType::kI32, {static_cast<std::int64_t>(x.size())});
    std::copy(x.begin(), x.end(), static_cast<std::int32_t*>(v.data));
    return v;
  }
  AttentionArgs Dense(std::int64_t b, std::int64_t sq, std::int64_t skv) {
    AttentionArgs a;
    a.q = Of(DType::kF32, {b, sq, 4, 8});
    a.k = Of(DType::kF32, {b, skv, 2, 8});
    a.v = Of(DType::kF32, {b, skv, 2, 8});
    a.out = Of(DType::kF32, {b, sq, 4, 8});
    return a;
  }
  AttentionArgs Packed(const std::vector<std::int32_t>& cu_q, const std::vector<std::int32_t>& cu_kv) {
    AttentionArgs a;
    a.q = Of(DType::kF32, {cu_q.back(), 4, 8});
    a.k = Of(DType::kF32, {cu_kv.back(), 2, 8});
    a.v = Of(DType::kF32, {cu_kv.back(), 2, 8});
    a.out = Of(DType::kF32, {cu_q.back(), 4, 8});
    a.cu_seqlens_q = Ints(cu_q);
    a.cu_seqlens_kv = Ints(cu_kv);
    return a;
  }
  // 6 pages of 4 slots.
  AttentionArgs Paged(std::int64_t b, std::int64_t sq) {
    AttentionArgs a = Dense(b, sq, 1);
    a.k = Of(DType::kF32, {6, 4, 2, 8});
    a.v = Of(DType::kF32, {6, 4, 2, 8});
    return a;
  }
};

std::string FieldOf(const AttentionArgs& a) {
  try {
    ProblemOf(a, {});
  } catch (const Error& e) {
    return e.field();
  }
  return "none";
}

TEST(ProblemOf, PhaseFollowsTheQueriesInUse) {
  Maker m;
  EXPECT_EQ(ProblemOf(m.Dense(2, 15, 20), {}).phase, Phase::kDecode);
  EXPECT_EQ(ProblemOf(m.Dense(2, 16, 20), {}).phase, Phase::kPrefill);
  EXPECT_EQ(ProblemOf(m.Packed({0, 1, 41}, {0, 1, 41}), {}).phase, Phase::kMixed);
  EXPECT_EQ(ProblemOf(m.Packed({0, 20, 41}, {0, 20, 41}), {}).phase, Phase::kPrefill);
  AttentionArgs a = m.Dense(2, 30, 30);
  a.seqused_q = m.Ints({30, 2});
  EXPECT_EQ(ProblemOf(a, {}).phase, Phase::kMixed);
  EXPECT_EQ(ProblemOf(a, {}).seq_q, 30);
  a.seqused_q = m.Ints({0, 2});
  EXPECT_EQ(ProblemOf(a, {}).phase, Phase::kDecode);
  EXPECT_EQ(ProblemOf(m.Dense(0, 30, 30), {}).phase, Phase::kDecode);
}

TEST(ProblemOf, LongestKeyRunComesFromTheTableInUse) {
  Maker m;
  AttentionArgs a = m.Dense(2, 1, 50);
  EXPECT_EQ(ProblemOf(a, {}).seq_kv, 50);
  a.seqused_kv = m.Ints({7, 30});
  EXPECT_EQ(ProblemOf(a, {}).seq_kv, 30);
  a.cache_seqlens = m.Ints({11, 3});
  EXPECT_EQ(ProblemOf(a, {}).seq_kv, 11);
  EXPECT_EQ(ProblemOf(m.Packed({0, 1, 2}, {0, 9, 21}), {}).seq_kv, 12);

  a = m.Paged(2, 1);
  a.block_table = TensorView::Contiguous(m.Ints({0, 1, 2, 3, 4, 5}).data, DType::kI32, {2, 3});
  a.seqlens_kv = m.Ints({5, 12});
  Problem p = ProblemOf(a, {});
  EXPECT_EQ(p.seq_kv, 12);
  EXPECT_EQ(p.page_size, 4);
  EXPECT_EQ(p.table, TableKind::kBlock);

  a = m.Paged(3, 1);
  a.kv_indptr = m.Ints({0, 2, 2, 6});
  a.kv_indices = m.Ints({0, 1, 2, 3, 4, 5});
  a.kv_last_page_len = m.Ints({4, 0, 3});
  p = ProblemOf(a, {});
  EXPECT_EQ(p.seq_kv, 15);
  EXPECT_EQ(p.table, TableKind::kCsr);
}

TEST(ProblemOf, HndPagesAreReadByTheirOwnDims) {
  Maker m;
  AttentionArgs a = m.Paged(1, 1);
  a.k = m.Of(DType::kF32, {6, 2, 16, 8});
  a.v = m.Of(DType::kF32, {6, 2, 16, 8});
  a.kv_layout = KvLayout::kHND;
  a.block_table = TensorView::Contiguous(m.Ints({0}).data, DType::kI32, {1, 1});
  a.seqlens_kv = m.Ints({9});
  const Problem p = ProblemOf(a, {});
  EXPECT_EQ(p.page_size, 16);
  EXPECT_EQ(p.heads_kv, 2);
  EXPECT_EQ(p.layout, KvLayout::kHND);
}

TEST(ProblemOf, AnAppendCountsSequenceBySequence) {
  Maker m;
  AttentionArgs a = m.Dense(2, 1, 64);
  a.cache_seqlens = m.Ints({60, 10});
  a.k_new = m.Of(DType::kF32, {2, 4, 2, 8});
  a.v_new = m.Of(DType::kF32, {2, 4, 2, 8});
  EXPECT_EQ(ProblemOf(a, {}).seq_kv, 64);
  EXPECT_EQ(ProblemOf(a, {}).append, 4);
  // The longest append meets the shortest row: 60 + 4 and 10 + 54 both fit.
  a.cu_seqlens_new = m.Ints({0, 4, 58});
  a.k_new = m.Of(DType::kF32, {58, 2, 8});
  a.v_new = m.Of(DType::kF32, {58, 2, 8});
  EXPECT_EQ(ProblemOf(a, {}).seq_kv, 64);
  EXPECT_EQ(ProblemOf(a, {}).append, 54);
  a.cache_seqlens = m.Ints({61, 10});
  EXPECT_EQ(FieldOf(a), "cache_seqlens[0]");
  a.cache_seqlens.reset();
  EXPECT_EQ(FieldOf(a), "cache_seqlens");
  AttentionArgs none = m.Dense(0, 1, 64);  // no sequence, still an append
  none.cache_seqlens = TensorView::Contiguous(nullptr, DType::kI32, {0});
  none.k_new = m.Of(DType::kF32, {0, 4, 2, 8});
  none.v_new = m.Of(DType::kF32, {0, 4, 2, 8});
  EXPECT_NO_THROW(Validate(ProblemOf(none, {})));
}

TEST(ProblemOf, TakesTheTypeOfOutWhereItDiffers) {
  Maker m;
  AttentionArgs a = m.Dense(1, 1, 1);
  EXPECT_FALSE(ProblemOf(a, {}).out_dtype.has_value());
  a.out.dtype = DType::kBF16;
  EXPECT_EQ(ProblemOf(a, {}).out_dtype, DType::kBF16);
  a.out = {};
  EXPECT_FALSE(ProblemOf(a, {}).out_dtype.has_value());
}

TEST(ProblemOf, LyingCallsAreRefusedByFieldAndNothingIsReadBeyondThem) {
  Maker m;
  AttentionArgs a = m.Dense(2, 1, 20);
  a.q.rank = 1000;
  EXPECT_EQ(FieldOf(a), "q");
  a = m.Dense(2, 1, 20);
  a.k.shape[1] = -1;
  EXPECT_EQ(FieldOf(a), "k");
  a = m.Dense(2, 1, 20);
  a.seqused_kv = m.Ints({1});  // one entry too few
  EXPECT_EQ(FieldOf(a), "seqused_kv");
  a.seqused_kv = m.Of(DType::kU8, {2});
  EXPECT_EQ(FieldOf(a), "seqused_kv");
  a.seqused_kv = m.Ints({1, 2});
  a.seqused_kv->data = nullptr;
  EXPECT_EQ(FieldOf(a), "seqused_kv");
  a.seqused_kv = m.Ints({1, 2, 3, 4});
  a.seqused_kv->shape[0] = 2;
  a.seqused_kv->stride[0] = 2;
  EXPECT_EQ(FieldOf(a), "seqused_kv");
  a.seqused_kv = m.Ints({1, 2, 3});
  a.seqused_kv->shape[0] = 2;
  a.seqused_kv->data = static_cast<char*>(a.seqused_kv->data) + 1;
  EXPECT_EQ(FieldOf(a), "seqused_kv");
  a.seqused_kv = m.Ints({1, std::numeric_limits<std::int32_t>::max()});
  EXPECT_EQ(FieldOf(a), "seqused_kv[1]");

  a = m.Packed({0, 5}, {0, 5});
  static_cast<std::int32_t*>(a.cu_seqlens_q->data)[1] = 6;
  EXPECT_EQ(FieldOf(a), "cu_seqlens_q[1]");
  a.cu_seqlens_q = TensorView::Contiguous(nullptr, DType::kI32, {0});
  EXPECT_EQ(FieldOf(a), "cu_seqlens_q");
  a = m.Packed({0, 5}, {0, 5});
  a.cu_seqlens_kv.reset();
  EXPECT_EQ(FieldOf(a), "cu_seqlens_kv");

  a = m.Paged(2, 1);
  a.kv_indptr = m.Ints({0, 1, 2});
  EXPECT_EQ(FieldOf(a), "kv_indices");
  a.kv_indices = m.Ints({0, 1});
  a.kv_last_page_len = m.Ints({4, 99});
  EXPECT_EQ(FieldOf(a), "kv_indptr[2]");
  a = m.Paged(2, 1);
  a.block_table = m.Ints({0, 1});
  EXPECT_EQ(FieldOf(a), "block_table");
  a.block_table = TensorView::Contiguous(a.block_table->data, DType::kI32, {2, 1});
  EXPECT_EQ(FieldOf(a), "seqlens_kv");
  a.seqlens_kv = m.Ints({5, 1});
  EXPECT_EQ(FieldOf(a), "seqlens_kv[0]");
  a.k.shape[1] = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(FieldOf(a), "page_size");
}

TEST(ProblemOf, AHugeBatchOfNothingTakesNoTime) {
  Maker m;
  AttentionArgs a = m.Dense(0, 0, 0);
  a.q.shape[0] = a.k.shape[0] = a.v.shape[0] = a.out.shape[0] = std::int64_t{1} << 47;
  EXPECT_EQ(ProblemOf(a, {}).batch, std::int64_t{1} << 47);
}

}  // namespace
}  // namespace regard
