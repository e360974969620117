// ResolveArgs: the lengths it derives, the addresses they lead to, and every refusal by field, value and expectation.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "regard/status.h"
#include "tests/problem/sample_calls.h"

namespace regard {
namespace {

using testing::BlockTableCall;
using testing::Call;
using testing::CsrCall;
using testing::DenseAppendCall;
using testing::DenseCall;
using testing::PackedCall;
using testing::PagedAppendCall;

std::int32_t* Data(std::optional<TensorView>& t) {
  return static_cast<std::int32_t*>(t->data);
}

// One way to spoil a legal call, and the words that the refusal must carry.
struct Refusal {
  Call (*call)();
  void (*spoil)(Call&);
  const char* field;
  const char* value;     // part of it
  const char* expected;  // part of it
};

void ExpectRefusals(const std::vector<Refusal>& refusals) {
  for (const Refusal& r : refusals) {
    Call c = r.call();
    r.spoil(c);
    testing::ExpectRefused(c, r.field, r.value, r.expected);
  }
}

TEST(Resolve, DenseLengthsComeFromSequsedAndOffsetsAreTaken) {
  const auto s = DenseCall().Resolve();
  ASSERT_EQ(s.size(), 3u);
  EXPECT_EQ(s[0].rows, 2);
  EXPECT_EQ(s[1].seq_q, 0);
  EXPECT_EQ(s[1].seq_kv, 3);
  EXPECT_EQ(s[1].leftpad, 3);
  EXPECT_EQ(s[1].q_offset, -7);
  EXPECT_EQ(s[2].kv_row, 2);
}

TEST(Resolve, DenseLengthsDefaultToTheWholeShapeAndSequencesEndTogether) {
  Call c = DenseCall();
  c.a.seqused_q.reset();
  c.a.seqused_kv.reset();
  c.a.q_offset.reset();
  c.p.q_offset = false;
  for (const Sequence& s : c.Resolve()) {
    EXPECT_EQ(s.seq_q, 2);
    EXPECT_EQ(s.seq_kv, 5);
    EXPECT_EQ(s.q_offset, 3);
  }
}

TEST(Resolve, PackedRowsFollowCuSeqlensAndUsedLengths) {
  const auto s = PackedCall().Resolve();
  EXPECT_EQ(s[1].rows, 0);
  EXPECT_EQ(s[2].q_row, 2);
  EXPECT_EQ(s[2].rows, 4);
  EXPECT_EQ(s[1].kv_row, 3);
  EXPECT_EQ(s[1].seq_kv, 2);
  EXPECT_EQ(s[2].q_offset, 2);
}

TEST(Resolve, CsrPagesGiveTheLengthsWithAndWithoutSeqlens) {
  for (const bool with_lengths : {true, false}) {
    Call c = CsrCall();
    if (!with_lengths) c.a.seqlens_kv.reset();
    const auto s = c.Resolve();
    EXPECT_EQ(s[0].seq_kv, 7);
    EXPECT_EQ(s[1].seq_kv, 0);
    EXPECT_EQ(s[2].seq_kv, 3);
    EXPECT_EQ(s[2].kv_row, 2);
  }
}

TEST(Resolve, AppendAddsNewTokensToCacheSeqlens) {
  const auto s = DenseAppendCall().Resolve();
  EXPECT_EQ(s[0].kv_row, 3);
  EXPECT_EQ(s[0].append_begin, 4);
  EXPECT_EQ(s[0].append_count, 2);
  EXPECT_EQ(s[0].seq_kv, 6);
  EXPECT_EQ(s[0].rotary_base, 4);
  EXPECT_EQ(s[1].q_offset, 0);

  const auto t = PagedAppendCall().Resolve();
  EXPECT_EQ(t[0].append_count, 3);
  EXPECT_EQ(t[1].append_count, 0);
  EXPECT_EQ(t[2].new_row, 3);
  EXPECT_EQ(t[2].seq_kv, 3);
  EXPECT_EQ(t[1].rotary_base, 9);
}

TEST(Resolve, CacheSeqlensWithoutAppendGiveTheLengths) {
  Call c = DenseAppendCall();
  c.p.append.reset();
  c.p.options.rotary = Rotary::kNone;
  for (auto* t : {&c.a.k_new, &c.a.v_new, &c.a.rotary_cos, &c.a.rotary_sin}) t->reset();
  EXPECT_EQ(c.Resolve()[0].seq_kv, 4);
}

TEST(Resolve, UncheckedFillsTheSameNumbers) {
  for (auto* make : {DenseCall, PackedCall, BlockTableCall, CsrCall, DenseAppendCall, PagedAppendCall}) {
    const Call c = make();
    const auto checked = c.Resolve(true), unchecked = c.Resolve(false);
    ASSERT_EQ(checked.size(), unchecked.size());
    for (std::size_t b = 0; b < checked.size(); ++b) {
      EXPECT_EQ(checked[b].seq_kv, unchecked[b].seq_kv);
      EXPECT_EQ(checked[b].kv_row, unchecked[b].kv_row);
      EXPECT_EQ(checked[b].q_offset, unchecked[b].q_offset);
    }
  }
}

TEST(Resolve, AnEmptyBatchNeedsNoMemory) {
  Call c;
  c.p = testing::SampleBounds(4, 2, 5);
  for (TensorView* t : {&c.a.q, &c.a.k})
    *t = TensorView::Contiguous(nullptr, DType::kF32, {0, 2, t == &c.a.q ? 4 : 2, 8});
  c.a.v = TensorView::Contiguous(nullptr, DType::kF32, {0, 2, 2, 4});
  c.a.out = TensorView::Contiguous(nullptr, DType::kF32, {0, 2, 4, 4});
  EXPECT_TRUE(c.Resolve().empty());
}

TEST(KvTokenOffset, WalksDenseRowsPackedRowsAndBothPageLayouts) {
  const Call dense = DenseAppendCall(), packed = PackedCall(), nhd = BlockTableCall(), hnd = CsrCall();
  const auto offset = [](const Call& c, std::size_t b, std::int64_t j) {
    return KvTokenOffset(c.p, c.a, c.Resolve()[b], c.a.v, j);
  };
  EXPECT_EQ(offset(dense, 0, 5), 3 * 6 * 8 + 5 * 8);  // row 3 of 6 keys, 8 elements a key
  EXPECT_EQ(offset(packed, 1, 1), (3 + 1) * 8);
  EXPECT_EQ(offset(nhd, 2, 6), 3 * 32 + 2 * 8);  // second page is 3, slot 2
  EXPECT_EQ(offset(hnd, 0, 5), 1 * 32 + 1 * 4);  // second page is 1, slot 1 of its head
  EXPECT_EQ(KvHeadStride(dense.p, dense.a.v), 4);
  EXPECT_EQ(KvHeadStride(packed.p, packed.a.v), 4);
  EXPECT_EQ(KvHeadStride(nhd.p, nhd.a.v), 4);
  EXPECT_EQ(KvHeadStride(hnd.p, hnd.a.v), 16);
}

TEST(Resolve, RefusesViewsThatDoNotFitThePlan) {
  ExpectRefusals({
      {DenseCall, [](Call& c) { c.p.batch = 2; }, "q.shape[0]", "3", "at most 2"},
      {PackedCall, [](Call& c) { c.p.batch = 2; }, "cu_seqlens_q.shape[0]", "4", "at most 3"},
      {DenseCall, [](Call& c) { c.p.seq_q = 1; }, "q.shape[1]", "2 rows", "at most 1"},
      {PackedCall, [](Call& c) { c.p.seq_q = 3; }, "cu_seqlens_q[3]", "4 rows", "at most 3"},
      {DenseCall, [](Call& c) { c.p.seq_kv = 4; }, "seqused_kv[0]", "5", "at most 4"},
      {DenseAppendCall, [](Call& c) { c.p.append = 1; }, "k_new.shape[1]", "2", "at most 1"},
      {PagedAppendCall, [](Call& c) { c.p.append = 2; }, "cu_seqlens_new[1]", "3 tokens", "at most 2"},
      {DenseCall, [](Call& c) { c.p.heads_q = 8; }, "q.shape[2]", "4", "8 (Hq)"},
      {DenseCall, [](Call& c) { c.p.heads_kv = 4; }, "k.shape[2]", "2", "4 (Hkv)"},
      {DenseCall, [](Call& c) { c.a.v.shape[3] = 3; }, "v.shape[3]", "3", "4 (Dv)"},
      {DenseCall, [](Call& c) { c.a.v.shape[1] = 4; }, "v.shape[1]", "4", "5 (Skv of k)"},
      {DenseCall, [](Call& c) { c.a.k.shape[0] = 2; }, "k.shape[0]", "2", "3 (B)"},
      {DenseCall, [](Call& c) { c.a.out.shape[1] = 1; }, "out.shape[1]", "1", "2 (Sq)"},
      {DenseCall, [](Call& c) { c.a.lse->shape[2] = 1; }, "lse.shape[2]", "1", "2 (Sq)"},
      {DenseCall, [](Call& c) { c.a.qv->shape[3] = 2; }, "qv.shape[3]", "2", "4 (Dv)"},
      {DenseCall, [](Call& c) { c.a.q.rank = 3; }, "q.rank", "3", "4: (B, Sq, Hq, D)"},
      {DenseCall, [](Call& c) { c.a.q.rank = 9; }, "q.rank", "9", "1 to 5"},
      {DenseCall, [](Call& c) { c.a.q.dtype = DType::kF16; }, "q.dtype", "f16", "f32"},
      {DenseCall, [](Call& c) { c.a.k.dtype = DType::kBF16; }, "k.dtype", "bf16", "f32"},
      {BlockTableCall, [](Call& c) { c.a.out.dtype = DType::kF16; }, "out.dtype", "f16", "bf16"},
      {DenseCall, [](Call& c) { c.a.lse->dtype = DType::kI32; }, "lse.dtype", "i32", "f32"},
      {DenseCall, [](Call& c) { c.a.k.dtype = static_cast<DType>(77); }, "k.dtype", "code 77", "known"},
      {DenseCall, [](Call& c) { c.a.k.device.type = DeviceType::kCuda; }, "k.device", "cuda:0", "cpu"},
      {DenseCall, [](Call& c) { c.a.q.device.type = DeviceType::kCuda; }, "q.device", "cuda:0", "cpu"},
      {DenseCall, [](Call& c) { c.a.v.data = nullptr; }, "v.data", "null", "120 elements"},
      {DenseCall, [](Call& c) { c.a.v.data = static_cast<char*>(c.a.v.data) + 1; }, "v.data", "address", "4 bytes"},
      {DenseCall, [](Call& c) { c.a.k.stride[3] = 2; }, "k.stride[3]", "2", "contiguous"},
      {DenseCall, [](Call& c) { c.a.k.stride[0] = INT64_MAX; }, "k.stride", "64 bits", "hold"},
      {DenseCall, [](Call& c) { c.a.k.stride[0] = -(INT64_C(1) << 55); }, "k.stride", "address space", "memory"},
      {DenseCall, [](Call& c) { c.a.k.shape[1] = -1; }, "k.shape[1]", "-1", "2^48"},
      {BlockTableCall, [](Call& c) { c.a.k.shape[1] = 3; }, "k.shape[1]", "3", "4 (page_size)"},
      {CsrCall, [](Call& c) { c.a.kv_layout = KvLayout::kNHD; }, "kv_layout", "NHD", "HND, as the plan"},
      {CsrCall, [](Call& c) { c.a.v.shape[0] = 4; }, "v.shape[0]", "4", "5 (pages of k)"},
  });
}

TEST(Resolve, RefusesTensorsThatThePlanDoesNotKnowOrMisses) {
  ExpectRefusals({
      {DenseCall, [](Call& c) { c.p.lse = false; }, "lse", "given", "no lse"},
      {DenseCall, [](Call& c) { c.a.lse.reset(); }, "lse", "absent", "lse"},
      {DenseCall, [](Call& c) { c.a.qv.reset(); }, "qv", "absent", "qv"},
      {DenseCall, [](Call& c) { c.a.alibi_slopes.reset(); }, "alibi_slopes", "absent", "alibi"},
      {DenseCall, [](Call& c) { c.a.bias.reset(); }, "bias", "absent", "bias"},
      {DenseCall, [](Call& c) { c.p.mask = false; }, "mask", "given", "no mask"},
      {DenseCall, [](Call& c) { c.a.sink.reset(); }, "sink", "absent", "sink"},
      {DenseCall, [](Call& c) { c.a.leftpad.reset(); }, "leftpad", "absent", "leftpad"},
      {DenseCall, [](Call& c) { c.p.q_offset = false; }, "q_offset", "given", "no q_offset"},
      {DenseCall, [](Call& c) { c.p.score_mod = true; }, "score_mod", "absent", "score_mod"},
      {DenseCall, [](Call& c) { c.p.mask_mod = true; }, "mask_mod", "absent", "mask_mod"},
      {DenseCall, [](Call& c) { c.p.varlen = true; }, "cu_seqlens_q", "absent", "packed q"},
      {PackedCall, [](Call& c) { c.a.cu_seqlens_kv.reset(); }, "cu_seqlens_kv", "absent", "packed keys"},
      {PackedCall,
       [](Call& c) {
         c.a.cache_batch_idx = c.Ints({0, 1, 2});
       },
       "cache_batch_idx", "given", "cache rows"},
      {DenseCall,
       [](Call& c) {
         c.a.block_table = c.Ints({0, 0, 0}, 3);
       },
       "block_table", "given", "pages"},
      {DenseCall,
       [](Call& c) {
         c.a.k_descale = c.Floats(DType::kF32, {3, 2});
       },
       "k_descale", "given", "fp8"},
      {DenseCall,
       [](Call& c) {
         c.a.q_descale = c.Floats(DType::kF32, {3, 2});
       },
       "q_descale", "given", "fp8 q"},
      {DenseCall,
       [](Call& c) {
         c.a.cu_seqlens_new = c.Ints({0, 1, 2, 3});
       },
       "cu_seqlens_new", "given", "k_new"},
      {DenseCall,
       [](Call& c) {
         c.a.rotary_seqlens = c.Ints({0, 1, 2});
       },
       "rotary_seqlens", "given", "rotary_cos"},
      {BlockTableCall, [](Call& c) { c.a.block_table.reset(); }, "block_table", "absent", "block table"},
      {BlockTableCall, [](Call& c) { c.a.seqlens_kv.reset(); }, "seqlens_kv", "absent", "lengths"},
      {CsrCall, [](Call& c) { c.a.kv_last_page_len.reset(); }, "kv_last_page_len", "absent", "CSR"},
      {CsrCall,
       [](Call& c) {
         c.a.block_table = c.Ints({0, 0, 0}, 3);
       },
       "block_table", "given", "no block table"},
      {CsrCall,
       [](Call& c) {
         c.a.cache_batch_idx = c.Ints({0, 1, 2});
       },
       "cache_batch_idx", "given", "block table"},
      {CsrCall,
       [](Call& c) {
         c.a.cu_seqlens_kv = c.Ints({0, 1, 2, 3});
       },
       "cu_seqlens_kv", "given", "paged"},
      {DenseAppendCall, [](Call& c) { c.a.k_new.reset(); }, "k_new", "absent", "append"},
      {DenseAppendCall, [](Call& c) { c.a.v_new.reset(); }, "v_new", "absent", "append"},
      {DenseAppendCall, [](Call& c) { c.p.append.reset(); }, "k_new", "given", "no append"},
      {DenseAppendCall, [](Call& c) { c.a.cache_seqlens.reset(); }, "cache_seqlens", "absent", "append"},
      {DenseAppendCall, [](Call& c) { c.a.rotary_sin.reset(); }, "rotary_sin", "absent", "rotary"},
      {DenseAppendCall, [](Call& c) { c.p.options.rotary = Rotary::kNone; }, "rotary_cos", "given", "no rotary"},
      {DenseAppendCall,
       [](Call& c) {
         c.p.append.reset();
         c.a.k_new.reset();
         c.a.v_new.reset();
       },
       "k_new", "absent", "rotary needs k_new"},
  });
}

TEST(Resolve, RefusesScoreTensorsOfTheWrongShapeOrType) {
  ExpectRefusals({
      {DenseCall, [](Call& c) { c.a.alibi_slopes->dtype = DType::kI32; }, "alibi_slopes.dtype", "i32", "f32"},
      {DenseCall, [](Call& c) { c.a.alibi_slopes = c.Floats(DType::kF32, {3}); }, "alibi_slopes.shape[0]", "3",
       "4 (Hq)"},
      {DenseCall, [](Call& c) { c.a.alibi_slopes->shape[0] = 2; }, "alibi_slopes.shape[0]", "2", "3 (B)"},
      {DenseCall, [](Call& c) { c.a.bias->dtype = DType::kF8E4M3; }, "bias.dtype", "f8e4m3", "f32 or f16 or bf16"},
      {DenseCall, [](Call& c) { c.a.bias->shape[0] = 2; }, "bias.shape[0]", "2", "1 or 3 (B)"},
      {DenseCall, [](Call& c) { c.a.mask->shape[1] = 2; }, "mask.shape[1]", "2", "1 or 4 (Hq)"},
      {DenseCall, [](Call& c) { c.a.mask->shape[3] = 4; }, "mask.shape[3]", "4", "at least 5"},
      {DenseCall, [](Call& c) { c.a.bias->shape[2] = 0; }, "bias.shape[2]", "0", "at least 2"},
      {DenseCall, [](Call& c) { c.a.mask->dtype = DType::kI32, c.a.mask->shape[3] = 1; }, "mask.dtype", "i32",
       "bool or u8"},
      {DenseCall, [](Call& c) { c.a.sink->dtype = DType::kI32; }, "sink.dtype", "i32", "f32"},
      {DenseCall, [](Call& c) { c.a.sink->shape[0] = 3; }, "sink.shape[0]", "3", "4 (Hq)"},
      {BlockTableCall, [](Call& c) { c.a.k_descale->shape[1] = 1; }, "k_descale.shape[1]", "1", "2 (Hkv)"},
      {BlockTableCall, [](Call& c) { c.a.v_descale->dtype = DType::kI32; }, "v_descale.dtype", "i32", "f32"},
      {DenseAppendCall, [](Call& c) { c.a.rotary_sin->shape[1] = 2; }, "rotary_sin.shape[1]", "2",
       "3 (rotary_dim / 2)"},
      {DenseAppendCall,
       [](Call& c) {
         c.a.rotary_cos = c.a.rotary_sin = c.Floats(DType::kF32, {6, 5});
       },
       "rotary_cos.shape[1]", "5", "1 to 4"},
      {DenseAppendCall, [](Call& c) { c.a.rotary_cos->dtype = DType::kI32; }, "rotary_cos.dtype", "i32", "f32"},
      {DenseAppendCall, [](Call& c) { c.a.rotary_cos->shape[0] = c.a.rotary_sin->shape[0] = 5; }, "rotary_cos.shape[0]",
       "5", "at least 6 positions, which sequence 0"},
      {PagedAppendCall, [](Call& c) { Data(c.a.rotary_seqlens)[1] = 10; }, "rotary_cos.shape[0]", "10", "at least 11"},
      {PagedAppendCall, [](Call& c) { Data(c.a.rotary_seqlens)[1] = -1; }, "rotary_seqlens[1]", "-1", "at least 0"},
  });
}

TEST(Resolve, RefusesLengthsOutOfOrderOrRange) {
  ExpectRefusals({
      {PackedCall, [](Call& c) { Data(c.a.cu_seqlens_q)[0] = 1; }, "cu_seqlens_q[0]", "1", "0"},
      {PackedCall, [](Call& c) { Data(c.a.cu_seqlens_q)[2] = 1; }, "cu_seqlens_q[2]", "1", "at least 2"},
      {PackedCall, [](Call& c) { Data(c.a.cu_seqlens_q)[3] = 8; }, "cu_seqlens_q[3]", "8", "at most 7 (rows of q)"},
      {PackedCall, [](Call& c) { Data(c.a.cu_seqlens_kv)[3] = 14; }, "cu_seqlens_kv[3]", "14", "at most 13"},
      {PackedCall, [](Call& c) { Data(c.a.seqused_kv)[1] = 5; }, "seqused_kv[1]", "5", "at most 4 rows"},
      {PackedCall, [](Call& c) { Data(c.a.seqused_kv)[1] = -1; }, "seqused_kv[1]", "-1", "at least 0"},
      {PackedCall, [](Call& c) { c.a.cu_seqlens_kv->shape[0] = 3; }, "cu_seqlens_kv.shape[0]", "3", "4 (B + 1)"},
      {DenseCall, [](Call& c) { Data(c.a.seqused_q)[1] = 3; }, "seqused_q[1]", "3", "0 to 2"},
      {DenseCall, [](Call& c) { Data(c.a.seqused_q)[1] = -2; }, "seqused_q[1]", "-2", "0 to 2"},
      {DenseCall, [](Call& c) { c.p.seq_kv = 9, Data(c.a.seqused_kv)[0] = 6; }, "seqused_kv[0]", "6", "at most 5"},
      {DenseCall, [](Call& c) { Data(c.a.leftpad)[2] = 1; }, "leftpad[2]", "1", "0 to 0"},
      {DenseCall, [](Call& c) { Data(c.a.leftpad)[0] = -1; }, "leftpad[0]", "-1", "0 to 5"},
      {DenseCall, [](Call& c) { c.a.leftpad->dtype = DType::kF32; }, "leftpad.dtype", "f32", "i32"},
      {DenseCall, [](Call& c) { c.a.leftpad->stride[0] = 2; }, "leftpad.stride[0]", "2", "1"},
      {BlockTableCall, [](Call& c) { Data(c.a.seqlens_kv)[1] = -1; }, "seqlens_kv[1]", "-1", "at least 0"},
      {BlockTableCall, [](Call& c) { c.p.seq_kv = 20, Data(c.a.seqlens_kv)[1] = 13; }, "seqlens_kv[1]", "13",
       "at most 12 keys: block_table has 3 columns"},
      {CsrCall, [](Call& c) { Data(c.a.seqlens_kv)[0] = 6; }, "seqlens_kv[0]", "6", "7 keys"},
      {CsrCall, [](Call& c) { Data(c.a.kv_last_page_len)[0] = 5; }, "kv_last_page_len[0]", "5", "1 to 4"},
      {CsrCall, [](Call& c) { Data(c.a.kv_last_page_len)[2] = 0; }, "kv_last_page_len[2]", "0", "1 to 4"},
      {CsrCall, [](Call& c) { Data(c.a.kv_indptr)[0] = -1; }, "kv_indptr[0]", "-1", "0"},
      {CsrCall, [](Call& c) { Data(c.a.kv_indptr)[3] = 5; }, "kv_indptr[3]", "5", "at most 4 (entries of kv_indices)"},
      {DenseAppendCall, [](Call& c) { c.p.seq_kv = 9, Data(c.a.cache_seqlens)[0] = 5; }, "cache_seqlens[0]",
       "5 + 2 new tokens", "at most 6 (k.shape[1])"},
      {DenseAppendCall, [](Call& c) { Data(c.a.cache_seqlens)[1] = -1; }, "cache_seqlens[1]", "-1", "at least 0"},
      {DenseAppendCall, [](Call& c) { Data(c.a.cache_batch_idx)[1] = 4; }, "cache_batch_idx[1]", "4", "0 to 3"},
      {DenseAppendCall, [](Call& c) { Data(c.a.cache_batch_idx)[1] = -1; }, "cache_batch_idx[1]", "-1", "0 to 3"},
      {DenseAppendCall,
       [](Call& c) {
         c.a.seqlens_kv = c.Ints({6, 1});
       },
       "seqlens_kv[1]", "1", "2, as cache_seqlens[1]"},
      {PagedAppendCall, [](Call& c) { Data(c.a.cache_batch_idx)[1] = 4; }, "cache_batch_idx[1]", "4", "block_table"},
      {PagedAppendCall, [](Call& c) { c.p.seq_kv = 9, Data(c.a.cache_seqlens)[0] = 4; }, "cache_seqlens[0]",
       "4 + 3 new tokens", "at most 6 keys: block_table has 3 columns, page_size is 2"},
      {PagedAppendCall, [](Call& c) { Data(c.a.cu_seqlens_new)[3] = 5; }, "cu_seqlens_new[3]", "5", "at most 4"},
  });
}

TEST(Resolve, RefusesPagesOutOfRangeOnlyBelowTheLength) {
  ExpectRefusals({
      {BlockTableCall, [](Call& c) { Data(c.a.block_table)[1] = 6; }, "block_table[0][1]", "6", "0 to 5"},
      {BlockTableCall, [](Call& c) { Data(c.a.block_table)[6] = -1; }, "block_table[2][0]", "-1",
       "sequence 2 has 8 keys"},
      {BlockTableCall, [](Call& c) { Data(c.a.seqlens_kv)[1] = 1; }, "block_table[1][0]", "-1", "0 to 5"},
      {CsrCall, [](Call& c) { Data(c.a.kv_indices)[1] = 5; }, "kv_indices[1]", "5", "0 to 4"},
      {CsrCall, [](Call& c) { Data(c.a.kv_indices)[2] = INT32_MIN; }, "kv_indices[2]", "-2147483648", "0 to 4"},
  });
  Call c = BlockTableCall();
  Data(c.a.block_table)[2] = INT32_MIN;  // page 2 of a sequence of 5 keys: not used
  EXPECT_NO_THROW(c.Resolve());
}

TEST(Resolve, RefusesTwoAppendsToOneSlot) {
  ExpectRefusals({
      {DenseAppendCall, [](Call& c) { Data(c.a.cache_batch_idx)[1] = 3, Data(c.a.cache_seqlens)[1] = 3; },
       "cache_batch_idx[1]", "3", "position 4 of sequence 1 lands on a slot which position 4 of sequence 0"},
      {PagedAppendCall, [](Call& c) { Data(c.a.block_table)[7] = 2; }, "block_table[2][1]", "2",
       "position 2 of sequence 2 lands on a slot which position 4 of sequence 0"},
      {PagedAppendCall, [](Call& c) { Data(c.a.block_table)[2] = 1; }, "block_table[0][2]", "1",
       "position 5 of sequence 0 lands on a slot which position 3 of sequence 0"},
  });
  // One row twice, but apart: nothing is written twice.
  Call c = DenseAppendCall();
  Data(c.a.cache_batch_idx)[1] = 3;
  EXPECT_NO_THROW(c.Resolve());
  // A shared page whose written slots differ: sequence 0 writes slot 1 of page 1, sequence 2 slot 0.
  Call d = PagedAppendCall();
  Data(d.a.block_table)[7] = 1;
  EXPECT_NO_THROW(d.Resolve());
}

TEST(Resolve, RefusesWrittenMemoryThatOverlaps) {
  ExpectRefusals({
      {DenseCall, [](Call& c) { c.a.out.data = c.a.q.data; }, "out", "overlaps q", "written"},
      {DenseCall, [](Call& c) { c.a.out.data = static_cast<float*>(c.a.k.data) + 200; }, "out", "overlaps k",
       "written"},
      {DenseCall, [](Call& c) { c.a.lse->data = c.a.out.data; }, "out", "overlaps lse", "written"},
      {DenseCall, [](Call& c) { c.a.bias->data = c.a.lse->data; }, "lse", "overlaps bias", "written"},
      {DenseCall, [](Call& c) { c.a.out.stride[0] = 0; }, "out.stride", "share memory", "apart"},
      {DenseCall, [](Call& c) { c.a.lse->stride[1] = 1; }, "lse.stride", "share memory", "apart"},
      {DenseAppendCall, [](Call& c) { c.a.k.stride[0] = 0; }, "k.stride", "share memory", "apart"},
      {DenseAppendCall, [](Call& c) { c.a.v = c.a.k, c.a.v.shape[3] = 4; }, "k", "overlaps v", "written"},
      {DenseAppendCall, [](Call& c) { c.a.k_new->data = c.a.k.data; }, "k", "overlaps k_new", "written"},
      {DenseAppendCall, [](Call& c) { c.a.cache_seqlens->data = c.a.v.data; }, "v", "overlaps cache_seqlens",
       "written"},
  });
}

TEST(Resolve, AcceptsInputsThatShareMemoryAndInterleavedCaches) {
  Call broadcast = DenseCall();
  broadcast.a.k.stride[0] = 0;  // one key sequence for all of the batch
  EXPECT_NO_THROW(broadcast.Resolve());

  Call c = DenseAppendCall();  // kv (rows, 2, keys, Hkv, D): k = kv[:, 0], v = kv[:, 1]
  const TensorView kv = c.Floats(DType::kF32, {4, 2, 6, 2, 8});
  c.a.k.data = kv.data;
  c.a.v.data = kv.At<float>(0, 1, 0, 0, 0);
  c.a.k.stride = c.a.v.stride = {kv.stride[0], kv.stride[2], kv.stride[3], 1};
  EXPECT_NO_THROW(c.Resolve());
  c.a.v.data = kv.At<float>(0, 0, 3, 0, 0);
  EXPECT_THROW(c.Resolve(), Error);
}

TEST(Resolve, ScratchTooSmallIsAnErrorNotAnOverrun) {
  const Call c = PagedAppendCall();
  std::vector<Sequence> sequences(3);
  std::vector<std::byte> scratch(20);
  EXPECT_THROW(ResolveArgs(c.p, c.a, true, sequences, scratch), Error);
  EXPECT_THROW(ResolveArgs(c.p, c.a, true, std::span(sequences).first(2), {}), Error);
}

}  // namespace
}  // namespace regard
