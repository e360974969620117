// One sequence's tensors, from which a test builds every way of computing the same rows: whole, in pieces, in a batch,
// paged, left-padded. All buffers are owned by the object; views borrow.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "regard/attention.h"

namespace regard::testing {

// A buffer of floats in any element type.
struct Buffer {
  std::vector<std::byte> bytes;
  DType dtype = DType::kF32;

  Buffer() = default;
  Buffer(DType t, std::int64_t n) : bytes(static_cast<std::size_t>(n) * SizeOf(t)), dtype(t) {}
  static Buffer Random(DType t, std::int64_t n, double deviation, std::uint64_t seed) {
    Buffer b(t, n);
    std::mt19937_64 rng(seed);
    std::normal_distribution<float> normal(0.0f, static_cast<float>(deviation));
    for (std::int64_t i = 0; i < n; ++i) StoreFloat(b.bytes.data(), t, i, normal(rng));
    return b;
  }
  // NaN in every element.
  static Buffer Poisoned(DType t, std::int64_t n) {
    Buffer b(t, n);
    for (std::int64_t i = 0; i < n; ++i) StoreFloat(b.bytes.data(), t, i, std::numeric_limits<float>::quiet_NaN());
    return b;
  }
  std::byte* At(std::int64_t element) { return bytes.data() + static_cast<std::size_t>(element) * SizeOf(dtype); }
};

struct Shape {
  std::int64_t seq_q = 40, seq_kv = 1300, heads_q = 6, heads_kv = 2, head_dim = 40, head_dim_v = 24;
  DType dtype = DType::kF32, kv_dtype = DType::kF32;
  bool alibi = false, bias = false, mask = false, sink = false, qv = false;
  double q_deviation = 2, v_deviation = 1;
  AttentionOptions options;
  std::uint64_t dropout_seed = 0x8badf00ddeadc0de, dropout_offset = 0xc001d00d80000007;
};

struct SequenceData {
  Shape shape;
  Buffer q, k, v, qv, bias, mask, slopes, sink, k_descale, v_descale;

  explicit SequenceData(const Shape& s, std::uint64_t seed) : shape(s) {
    q = Buffer::Random(s.dtype, s.seq_q * s.heads_q * s.head_dim, s.q_deviation, seed);
    qv = Buffer::Random(s.dtype, s.seq_q * s.heads_q * s.head_dim_v, 1, seed + 1);
    k = Buffer::Random(s.kv_dtype, s.seq_kv * s.heads_kv * s.head_dim, 1, seed + 2);
    v = Buffer::Random(s.kv_dtype, s.seq_kv * s.heads_kv * s.head_dim_v, s.v_deviation, seed + 3);
    bias = Buffer::Random(DType::kF32, s.heads_q * s.seq_q * s.seq_kv, 1, seed + 4);
    slopes = Buffer(DType::kF32, s.heads_q);
    for (std::int64_t h = 0; h < s.heads_q; ++h) StoreFloat(slopes.bytes.data(), DType::kF32, h, 0.01f * static_cast<float>(h + 1));
    sink = Buffer::Random(DType::kF32, s.heads_q, 1, seed + 5);
    mask = Buffer(DType::kBool, s.heads_q * s.seq_q * s.seq_kv);
    std::mt19937_64 rng(seed + 6);
    for (auto& b : mask.bytes) b = std::byte{rng() % 10 != 0};
    k_descale = Buffer(DType::kF32, s.heads_kv);
    v_descale = Buffer(DType::kF32, s.heads_kv);
    for (std::int64_t h = 0; h < s.heads_kv; ++h) {
      StoreFloat(k_descale.bytes.data(), DType::kF32, h, 0.75f + 0.5f * static_cast<float>(h));
      StoreFloat(v_descale.bytes.data(), DType::kF32, h, 1.5f - 0.5f * static_cast<float>(h));
    }
  }

  // Queries [i, i + n) over keys [0, seq_kv - seq_q + i + n): what a chunk of a prompt, or a decode step, sees. Without
  // causality the keys are always all of them.
  std::int64_t KeysFor(std::int64_t i, std::int64_t n) const {
    return shape.options.causal ? shape.seq_kv - shape.seq_q + i + n : shape.seq_kv;
  }
  AttentionArgs Dense(std::int64_t i, std::int64_t n) {
    const Shape& s = shape;
    const std::int64_t keys = KeysFor(i, n);
    AttentionArgs a;
    a.q = TensorView::Contiguous(q.At(i * s.heads_q * s.head_dim), s.dtype, {1, n, s.heads_q, s.head_dim});
    a.k = TensorView::Contiguous(k.At(0), s.kv_dtype, {1, keys, s.heads_kv, s.head_dim});
    a.v = TensorView::Contiguous(v.At(0), s.kv_dtype, {1, keys, s.heads_kv, s.head_dim_v});
    if (s.qv) a.qv = TensorView::Contiguous(qv.At(i * s.heads_q * s.head_dim_v), s.dtype, {1, n, s.heads_q, s.head_dim_v});
    AddOptions(a, i, n, keys);
    return a;
  }
  void AddOptions(AttentionArgs& a, std::int64_t i, std::int64_t n, std::int64_t keys) {
    const Shape& s = shape;
    a.dropout_seed = s.dropout_seed;
    a.dropout_offset = s.dropout_offset;
    const auto slice = [&](Buffer& b) {
      TensorView t = TensorView::Contiguous(b.At(i * s.seq_kv), b.dtype, {1, s.heads_q, n, keys});
      t.stride = {s.heads_q * s.seq_q * s.seq_kv, s.seq_q * s.seq_kv, s.seq_kv, 1, 0};
      return t;
    };
    if (s.bias) a.bias = slice(bias);
    if (s.mask) a.mask = slice(mask);
    if (s.alibi) a.alibi_slopes = TensorView::Contiguous(slopes.At(0), DType::kF32, {s.heads_q});
    if (s.sink) a.sink = TensorView::Contiguous(sink.At(0), DType::kF32, {s.heads_q});
    if (IsFp8(s.kv_dtype)) {
      a.k_descale = TensorView::Contiguous(k_descale.At(0), DType::kF32, {1, s.heads_kv});
      a.v_descale = TensorView::Contiguous(v_descale.At(0), DType::kF32, {1, s.heads_kv});
    }
    // The default position of query i is Skv - Sq + i; without causality a chunk keeps it by an explicit offset.
    if (!s.options.causal && keys - n != s.seq_kv - s.seq_q + i) {
      offsets.push_back(std::make_unique<std::int32_t>(static_cast<std::int32_t>(s.seq_kv - s.seq_q + i)));
      a.q_offset = TensorView::Contiguous(offsets.back().get(), DType::kI32, {1});
    }
  }
  std::vector<std::unique_ptr<std::int32_t>> offsets;
};

// The bits of some rows: out [row][head][dim] and lse [row][head].
struct Bits {
  std::vector<std::byte> out, lse;
  bool operator==(const Bits&) const = default;
  void Append(const Bits& b) {
    out.insert(out.end(), b.out.begin(), b.out.end());
    lse.insert(lse.end(), b.lse.begin(), b.lse.end());
  }
  Bits Rows(std::int64_t begin, std::int64_t n, std::int64_t out_row, std::int64_t lse_row) const {
    Bits b;
    b.out.assign(out.begin() + begin * out_row, out.begin() + (begin + n) * out_row);
    b.lse.assign(lse.begin() + begin * lse_row, lse.begin() + (begin + n) * lse_row);
    return b;
  }
};

// Runs a call and gathers out and lse of batch entry `b` (dense) or packed rows [row, row + n).
inline Bits Collect(const AttentionResult& r, const TensorView& q, std::int64_t b, std::int64_t row, std::int64_t n) {
  Bits bits;
  const TensorView &out = r.out.view(), &lse = r.lse.view();
  const bool packed = q.rank == 3;
  const std::int64_t heads = q.shape[packed ? 1 : 2];
  const std::size_t row_bytes = static_cast<std::size_t>(heads * out.shape[packed ? 2 : 3]) * SizeOf(out.dtype);
  for (std::int64_t i = row; i < row + n; ++i) {
    const std::byte* from = packed ? out.At<std::byte>(i, 0, 0) : out.At<std::byte>(b, i, 0, 0);
    bits.out.insert(bits.out.end(), from, from + row_bytes);
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::byte* l = packed ? lse.At<std::byte>(h, i) : lse.At<std::byte>(b, h, i);
      bits.lse.insert(bits.lse.end(), l, l + 4);
    }
  }
  return bits;
}

}  // namespace regard::testing
