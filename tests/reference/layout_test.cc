// The same numbers however they lie in memory: dense, strided, packed, paged, grouped, padded.
#include <gtest/gtest.h>

#include "tests/reference/toy.h"

namespace regard::reference {
namespace {

using Index = std::int64_t;

constexpr Index kB = 2, kSq = 3, kSkv = 7, kHq = 4, kHkv = 2, kD = 3, kDv = 5;

// Options that make a mistaken position show.
void AskPositions(Toy& t) {
  t.p.options.causal = true;
  t.p.options.window_left = 4;
  t.args.alibi_slopes = t.Random({kHq});
  t.args.bias = t.Random({kB, 1, kSq, kSkv});
}

// Moves dense keys into a pool of NaN pages, each sequence's pages scattered, last page first.
void Page(Toy& t, Index page_size, KvLayout layout, TableKind table) {
  const Index pages = (kSkv + page_size - 1) / page_size, pool = 2 * kB * pages + 1;
  const auto scatter = [&](const TensorView& dense, Index dim) {
    const bool nhd = layout == KvLayout::kNHD;
    TensorView paged = nhd ? t.Random({pool, page_size, kHkv, dim}) : t.Random({pool, kHkv, page_size, dim});
    std::fill_n(static_cast<float*>(paged.data), paged.Elements(), kNanF);
    for (Index b = 0; b < kB; ++b)
      for (Index j = 0; j < kSkv; ++j)
        for (Index h = 0; h < kHkv; ++h)
          for (Index c = 0; c < dim; ++c) {
            const Index page = 2 * (b * pages + pages - 1 - j / page_size) + 1, slot = j % page_size;
            *(nhd ? paged.At<float>(page, slot, h, c) : paged.At<float>(page, h, slot, c)) =
                *dense.At<float>(b, j, h, c);
          }
    return paged;
  };
  t.args.k = scatter(t.args.k, kD);
  t.args.v = scatter(t.args.v, kDv);
  t.p.page_size = page_size;
  t.p.layout = layout;
  t.p.table = table;
  std::vector<std::int32_t> entries;
  for (Index b = 0; b < kB; ++b) {
    for (Index n = 0; n < pages; ++n) entries.push_back(static_cast<std::int32_t>(2 * (b * pages + pages - 1 - n) + 1));
    if (table == TableKind::kBlock) entries.push_back(-1);  // beyond the length: anything
    t.sequences[b].kv_row = table == TableKind::kBlock ? b : b * pages;
  }
  TensorView view = t.Ints(entries);
  if (table == TableKind::kCsr) {
    t.args.kv_indices = view;
  } else {
    t.args.block_table = TensorView::Contiguous(view.data, DType::kI32, {kB, pages + 1});
  }
}

TEST(ReferenceLayout, PagedEqualsDenseBitwise) {
  Toy dense(kB, kSq, kSkv, kHq, kHkv, kD, kDv);
  AskPositions(dense);
  const Result expected = dense.Run();
  for (const Index page_size : {1, 2, 3, 7, 16}) {
    for (const KvLayout layout : {KvLayout::kNHD, KvLayout::kHND}) {
      for (const TableKind table : {TableKind::kBlock, TableKind::kCsr}) {
        Toy t(kB, kSq, kSkv, kHq, kHkv, kD, kDv);
        AskPositions(t);
        Page(t, page_size, layout, table);
        EXPECT_EQ(Distance(t.Run(), expected), 0)
            << page_size << (layout == KvLayout::kNHD ? " NHD" : " HND") << (table == TableKind::kBlock ? "" : " CSR");
      }
    }
  }
}

// Packs sequences of 2 and 3 queries, 5 and 7 keys, out of the dense ones; the last two packed rows belong to nobody.
TEST(ReferenceLayout, PackedEqualsDenseBitwiseAndRowsOfNobodyAreEmpty) {
  Toy dense(kB, kSq, kSkv, kHq, kHkv, kD, kDv);
  AskPositions(dense);
  const Index queries[] = {2, 3}, keys[] = {5, 7};
  for (int b = 0; b < kB; ++b) {
    dense.sequences[b].seq_q = queries[b];
    dense.sequences[b].seq_kv = keys[b];
    dense.sequences[b].q_offset = keys[b] - queries[b];
  }
  const Result expected = dense.Run();

  Toy t(kB, kSq, kSkv, kHq, kHkv, kD, kDv);
  AskPositions(t);
  const auto pack = [&t](const TensorView& x, const Index* lengths, Index spare) {
    TensorView packed = t.Random({lengths[0] + lengths[1] + spare, x.shape[2], x.shape[3]});
    std::fill_n(static_cast<float*>(packed.data), packed.Elements(), kNanF);
    Index row = 0;
    for (Index b = 0; b < kB; ++b)
      for (Index i = 0; i < lengths[b]; ++i, ++row)
        for (Index h = 0; h < x.shape[2]; ++h)
          std::copy_n(x.At<float>(b, i, h, 0), x.shape[3], packed.At<float>(row, h, 0));
    return packed;
  };
  t.args.q = pack(t.args.q, queries, 2);
  t.args.k = pack(t.args.k, keys, 1);
  t.args.v = pack(t.args.v, keys, 1);
  t.args.cu_seqlens_q = t.Ints({0, 2, 5});
  t.args.cu_seqlens_kv = t.Ints({0, 5, 12});
  t.p.varlen = true;
  for (int b = 0; b < kB; ++b) {
    t.sequences[b] = dense.sequences[b];
    t.sequences[b].q_row = b == 0 ? 0 : 2;
    t.sequences[b].kv_row = b == 0 ? 0 : 5;
  }
  const Result r = t.Run();
  ASSERT_EQ(r.out.size(), 7u * kHq * kDv);
  ASSERT_EQ(r.lse.size(), 7u * kHq);
  for (Index b = 0; b < kB; ++b)
    for (Index i = 0; i < queries[b]; ++i)
      for (Index h = 0; h < kHq; ++h) {
        const Index row = t.sequences[b].q_row + i;
        EXPECT_EQ(r.lse[h * 7 + row], expected.lse[(b * kHq + h) * kSq + i]);
        for (Index c = 0; c < kDv; ++c)
          EXPECT_EQ(r.out[(row * kHq + h) * kDv + c], expected.out[((b * kSq + i) * kHq + h) * kDv + c]);
      }
  for (Index h = 0; h < kHq; ++h) {
    EXPECT_EQ(r.lse[h * 7 + 6], -kInf);
    EXPECT_EQ(r.out[(6 * kHq + h) * kDv], 0);
  }
  // Dense rows past the used length are empty too.
  EXPECT_EQ(expected.lse[2], -kInf);
  for (Index n = 2 * kHq * kDv; n < 3 * kHq * kDv; ++n) EXPECT_EQ(expected.out[n], 0);
}

TEST(ReferenceLayout, StridesDoNotMatter) {
  Toy t(kB, kSq, kSkv, kHq, kHkv, kD, kDv);
  const Result expected = t.Run();
  for (TensorView* x : {&t.args.q, &t.args.k, &t.args.v}) {
    TensorView moved = t.Random({x->shape[0], x->shape[2], x->shape[1], x->shape[3] + 1});  // (B, H, S, dim + 1)
    std::swap(moved.shape[1], moved.shape[2]);
    std::swap(moved.stride[1], moved.stride[2]);
    moved.shape[3] = x->shape[3];
    for (Index b = 0; b < x->shape[0]; ++b)
      for (Index i = 0; i < x->shape[1]; ++i)
        for (Index h = 0; h < x->shape[2]; ++h)
          std::copy_n(x->At<float>(b, i, h, 0), x->shape[3], moved.At<float>(b, i, h, 0));
    *x = moved;
  }
  EXPECT_EQ(Distance(t.Run(), expected), 0);
}

TEST(ReferenceLayout, GroupedHeadsEqualRepeatedHeads) {
  Toy t(kB, kSq, kSkv, 6, 2, kD, kDv);
  const Result expected = t.Run();
  for (TensorView* x : {&t.args.k, &t.args.v}) {
    TensorView repeated = t.Random({kB, kSkv, 6, x->shape[3]});
    for (Index b = 0; b < kB; ++b)
      for (Index j = 0; j < kSkv; ++j)
        for (Index h = 0; h < 6; ++h)
          std::copy_n(x->At<float>(b, j, h / 3, 0), x->shape[3], repeated.At<float>(b, j, h, 0));
    *x = repeated;
  }
  t.p.heads_kv = 6;
  EXPECT_EQ(Distance(t.Run(), expected), 0);
}

// The keys of `t` moved right by two padded slots, which hold NaN; the positions of the queries move with them.
TEST(ReferenceLayout, LeftPaddingOnlyShiftsPositions) {
  for (const bool chunked : {false, true}) {
    Toy t(1, kSq, 5, kHq, kHkv, kD, kDv);
    t.p.options.causal = true;
    t.p.options.dropout = 0.3;
    if (chunked) {
      t.p.options.chunk = 2;
    } else {
      t.p.options.window_left = 2;
    }
    t.args.alibi_slopes = t.Random({kHq});
    const Result expected = t.Run();
    for (TensorView* x : {&t.args.k, &t.args.v}) {
      TensorView padded = t.Random({1, 7, kHkv, x->shape[3]});
      std::fill_n(static_cast<float*>(padded.data), padded.Elements(), kNanF);
      std::copy_n(static_cast<float*>(x->data), x->Elements(), padded.At<float>(0, 2, 0, 0));
      *x = padded;
    }
    t.sequences[0].seq_kv = 7;
    t.sequences[0].leftpad = 2;
    t.sequences[0].q_offset += 2;
    EXPECT_EQ(Distance(t.Run(), expected), 0);
  }
}

TEST(ReferenceLayout, SixteenBitInputsAreReadExactly) {
  for (const DType type : {DType::kF16, DType::kBF16}) {
    Toy t(kB, kSq, kSkv, kHq, kHkv, kD, kDv);
    for (TensorView* x : {&t.args.q, &t.args.k, &t.args.v}) *x = t.As(*x, type);
    const Result narrow = t.Run();
    for (TensorView* x : {&t.args.q, &t.args.k, &t.args.v}) *x = t.As(*x, DType::kF32);
    EXPECT_EQ(Distance(t.Run(), narrow), 0);
  }
}

TEST(ReferenceLayout, Fp8WithDescalesEqualsTheDequantisedCall) {
  for (const DType type : {DType::kF8E4M3, DType::kF8E5M2}) {
    Toy t(kB, kSq, kSkv, kHq, kHkv, kD, kDv);
    t.args.qv = t.Random({kB, kSq, kHq, kDv});
    t.p.qv = true;
    for (TensorView* x : {&t.args.q, &t.args.k, &t.args.v, &*t.args.qv}) *x = t.As(*x, type);
    t.p.dtype = t.p.kv_dtype = type;
    t.p.options.softcap = 2;
    t.args.q_descale = t.Floats({0.5, 2, 1, 4}, {kB, kHkv});
    t.args.k_descale = t.Floats({2, 0.25, 1, 0.5}, {kB, kHkv});
    t.args.v_descale = t.Floats({1, 2, 4, 8}, {kB, kHkv});
    const Result quantised = t.Run();

    const auto dequantise = [&t](TensorView& x, const TensorView& descale) {
      x = t.As(x, DType::kF32);  // powers of two: exact
      for (Index b = 0; b < kB; ++b)
        for (Index i = 0; i < x.shape[1]; ++i)
          for (Index h = 0; h < x.shape[2]; ++h)
            for (Index c = 0; c < x.shape[3]; ++c)
              *x.At<float>(b, i, h, c) *= *descale.At<float>(b, h * kHkv / x.shape[2]);
    };
    dequantise(t.args.q, *t.args.q_descale);
    dequantise(*t.args.qv, *t.args.q_descale);
    dequantise(t.args.k, *t.args.k_descale);
    dequantise(t.args.v, *t.args.v_descale);
    t.args.q_descale = t.args.k_descale = t.args.v_descale = std::nullopt;
    t.p.dtype = t.p.kv_dtype = DType::kF32;
    EXPECT_LT(Distance(t.Run(), quantised), 1e-12);
  }
}

TEST(ReferenceLayout, LowPrecisionErrsByTheInputType) {
  Toy t(1, 8, 200, 2, 1, 64, 32);
  EXPECT_LT(Distance(t.Run(Rounding::kLowPrecision), t.Run()), 1e-5);
  EXPECT_GT(Distance(t.Run(Rounding::kLowPrecision), t.Run()), 0);
  for (const auto& [type, ulp] : {std::pair{DType::kF16, 1.0 / 2048}, std::pair{DType::kBF16, 1.0 / 256}}) {
    for (TensorView* x : {&t.args.q, &t.args.k, &t.args.v}) *x = t.As(t.As(*x, DType::kF32), type);
    t.p.dtype = t.p.kv_dtype = type;
    const double error = Distance(t.Run(Rounding::kLowPrecision).out, t.Run().out);
    EXPECT_LT(error, 4 * ulp);
    EXPECT_GT(error, ulp / 16);
    for (const double x : t.Run(Rounding::kLowPrecision).out) {
      std::uint16_t bits;
      StoreFloat(&bits, type, 0, static_cast<float>(x));
      ASSERT_EQ(LoadFloat(&bits, type, 0), x);  // out is rounded to its type
    }
  }
}

TEST(ReferenceLayout, LowPrecisionRoundsScoresAndProbabilities) {
  Toy t(1, 1, 3, 1, 1, 2, 1);
  t.p.dtype = t.p.kv_dtype = DType::kBF16;
  t.p.out_dtype = DType::kF32;
  t.p.options.scale = 1;
  t.args.q = t.As(t.Floats({1, 1}, {1, 1, 1, 2}), DType::kBF16);
  t.args.k = t.As(t.Floats({1, std::ldexp(1.0f, -9), 1, 0, 1, 0}, {1, 3, 1, 2}), DType::kBF16);
  t.args.v = t.As(t.Floats({1, 1, 1}, {1, 3, 1, 1}), DType::kBF16);
  // 1 + 2^-9 rounds to 1, so that all probabilities are 1/3, which rounds to 171/512.
  const Result r = t.Run(Rounding::kLowPrecision);
  EXPECT_EQ(r.lse[0], 1 + std::log(3.0f));
  EXPECT_EQ(r.out[0], 3 * 171 / 512.0);
}

}  // namespace
}  // namespace regard::reference
