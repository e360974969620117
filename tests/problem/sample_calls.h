// Small legal calls over real memory, for the tests of ResolveArgs. A Call owns every buffer, each of exactly the size
// that its view claims, so that AddressSanitizer sees the first byte past it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "regard/attention.h"
#include "regard/status.h"
#include "src/problem/sequence.h"

namespace regard::testing {

class Call {
 public:
  Problem p;
  AttentionArgs a;

  TensorView Floats(DType t, std::initializer_list<std::int64_t> shape) {
    TensorView v = TensorView::Contiguous(nullptr, t, shape);
    const std::size_t bytes = static_cast<std::size_t>(v.Elements()) * SizeOf(t);
    memory_.push_back(std::make_unique<std::byte[]>(bytes));
    v.data = memory_.back().get();
    return v;
  }
  TensorView Ints(std::vector<std::int32_t> values, std::int64_t rows = 0) {
    const auto n = static_cast<std::int64_t>(values.size());
    TensorView v = rows == 0 ? Floats(DType::kI32, {n}) : Floats(DType::kI32, {rows, n / rows});
    if (n > 0) std::memcpy(v.data, values.data(), values.size() * sizeof(std::int32_t));
    return v;
  }
  std::vector<Sequence> Resolve(bool check = true) const {
    const auto room = static_cast<std::size_t>(p.batch);
    std::vector<Sequence> sequences(room);
    std::vector<std::byte> scratch(ResolveScratchBytes(p));
    ResolveArgs(p, a, check, sequences, scratch);
    sequences.resize(static_cast<std::size_t>(BatchOf(a)));
    return sequences;
  }

 private:
  std::vector<std::unique_ptr<std::byte[]>> memory_;
};

// heads 4/2, D 8, Dv 4 in all of them.
inline Problem SampleBounds(std::int64_t batch, std::int64_t seq_q, std::int64_t seq_kv) {
  Problem p;
  p.batch = batch, p.seq_q = seq_q, p.seq_kv = seq_kv;
  p.heads_q = 4, p.heads_kv = 2, p.head_dim = 8, p.head_dim_v = 4;
  return p;
}

// 3 x 2 queries over 5 keys, with every tensor that changes a score, seqused and LSE.
inline Call DenseCall() {
  Call c;
  c.p = SampleBounds(3, 2, 5);
  c.p.lse = c.p.alibi = c.p.bias = c.p.mask = c.p.sink = c.p.leftpad = c.p.qv = c.p.q_offset = true;
  c.a.q = c.Floats(DType::kF32, {3, 2, 4, 8});
  c.a.k = c.Floats(DType::kF32, {3, 5, 2, 8});
  c.a.v = c.Floats(DType::kF32, {3, 5, 2, 4});
  c.a.out = c.Floats(DType::kF32, {3, 2, 4, 4});
  c.a.lse = c.Floats(DType::kF32, {3, 4, 2});
  c.a.qv = c.Floats(DType::kF32, {3, 2, 4, 4});
  c.a.seqused_q = c.Ints({2, 0, 1});
  c.a.seqused_kv = c.Ints({5, 3, 0});
  c.a.q_offset = c.Ints({3, -7, 100});
  c.a.leftpad = c.Ints({1, 3, 0});
  c.a.alibi_slopes = c.Floats(DType::kF32, {3, 4});
  c.a.bias = c.Floats(DType::kBF16, {3, 1, 2, 5});
  c.a.mask = c.Floats(DType::kBool, {1, 4, 1, 5});
  c.a.sink = c.Floats(DType::kF32, {4});
  return c;
}

// Packed q of 2, 0 and 4 rows (one row more that nobody owns) over packed keys of 3, 4 and 6 rows.
inline Call PackedCall() {
  Call c;
  c.p = SampleBounds(3, 4, 6);
  c.p.varlen = c.p.lse = true;
  c.a.q = c.Floats(DType::kF32, {7, 4, 8});
  c.a.k = c.Floats(DType::kF32, {13, 2, 8});
  c.a.v = c.Floats(DType::kF32, {13, 2, 4});
  c.a.out = c.Floats(DType::kF32, {7, 4, 4});
  c.a.lse = c.Floats(DType::kF32, {4, 7});
  c.a.cu_seqlens_q = c.Ints({0, 2, 2, 6});
  c.a.cu_seqlens_kv = c.Ints({0, 3, 7, 13});
  c.a.seqused_kv = c.Ints({3, 2, 6});
  return c;
}

// 3 x 1 fp8 query over 5, 0 and 8 keys in NHD pages of 4; entries past a length are rubbish.
inline Call BlockTableCall() {
  Call c;
  c.p = SampleBounds(3, 1, 8);
  c.p.phase = Phase::kDecode;
  c.p.page_size = 4;
  c.p.dtype = c.p.kv_dtype = DType::kF8E4M3;
  c.a.q = c.Floats(DType::kF8E4M3, {3, 1, 4, 8});
  c.a.k = c.Floats(DType::kF8E4M3, {6, 4, 2, 8});
  c.a.v = c.Floats(DType::kF8E4M3, {6, 4, 2, 4});
  c.a.out = c.Floats(DType::kBF16, {3, 1, 4, 4});
  c.a.block_table = c.Ints({5, 0, -1, -1, 99, 7, 2, 3, 1 << 30}, 3);
  c.a.seqlens_kv = c.Ints({5, 0, 8});
  c.a.q_descale = c.Floats(DType::kF32, {3, 2});
  c.a.k_descale = c.Floats(DType::kF32, {3, 2});
  c.a.v_descale = c.Floats(DType::kF32, {3, 2});
  return c;
}

// Packed q over 7, 0 and 3 keys in HND pages of 4, listed as CSR.
inline Call CsrCall() {
  Call c;
  c.p = SampleBounds(3, 2, 8);
  c.p.varlen = true;
  c.p.page_size = 4;
  c.p.layout = c.a.kv_layout = KvLayout::kHND;
  c.p.table = TableKind::kCsr;
  c.a.q = c.Floats(DType::kF32, {4, 4, 8});
  c.a.k = c.Floats(DType::kF32, {5, 2, 4, 8});
  c.a.v = c.Floats(DType::kF32, {5, 2, 4, 4});
  c.a.out = c.Floats(DType::kF32, {4, 4, 4});
  c.a.cu_seqlens_q = c.Ints({0, 2, 3, 4});
  c.a.kv_indptr = c.Ints({0, 2, 2, 3});
  c.a.kv_indices = c.Ints({4, 1, 0, -5});
  c.a.kv_last_page_len = c.Ints({3, -1, 3});
  c.a.seqlens_kv = c.Ints({7, 0, 3});
  return c;
}

// 2 new tokens for each of 2 sequences, in rows 3 and 1 of a cache of 4 rows of 6 keys; causal, rotary.
inline Call DenseAppendCall() {
  Call c;
  c.p = SampleBounds(2, 2, 6);
  c.p.append = 2;
  c.p.options.causal = true;
  c.p.options.rotary = Rotary::kHalf;
  c.a.q = c.Floats(DType::kF32, {2, 2, 4, 8});
  c.a.k = c.Floats(DType::kF32, {4, 6, 2, 8});
  c.a.v = c.Floats(DType::kF32, {4, 6, 2, 4});
  c.a.out = c.Floats(DType::kF32, {2, 2, 4, 4});
  c.a.k_new = c.Floats(DType::kF32, {2, 2, 2, 8});
  c.a.v_new = c.Floats(DType::kF32, {2, 2, 2, 4});
  c.a.cache_seqlens = c.Ints({4, 0});
  c.a.cache_batch_idx = c.Ints({3, 1});
  c.a.rotary_cos = c.Floats(DType::kF32, {6, 3});
  c.a.rotary_sin = c.Floats(DType::kF32, {6, 3});
  return c;
}

// Packed new tokens (3, 0 and 1) for 3 sequences of 3, 4 and 2 keys in NHD pages of 2; sequences 0 and 1 share a
// prefix.
inline Call PagedAppendCall() {
  Call c;
  c.p = SampleBounds(3, 3, 6);
  c.p.page_size = 2;
  c.p.append = 3;
  c.p.leftpad = true;
  c.p.options.rotary = Rotary::kInterleaved;
  c.a.q = c.Floats(DType::kF32, {3, 3, 4, 8});
  c.a.k = c.Floats(DType::kF32, {8, 2, 2, 8});
  c.a.v = c.Floats(DType::kF32, {8, 2, 2, 4});
  c.a.out = c.Floats(DType::kF32, {3, 3, 4, 4});
  c.a.block_table = c.Ints({0, 1, 2, 0, 3, -1, 6, 7, -1, -1, -1, -1}, 4);
  c.a.cache_batch_idx = c.Ints({0, 1, 2});
  c.a.cache_seqlens = c.Ints({3, 4, 2});
  c.a.leftpad = c.Ints({0, 1, 3});
  c.a.k_new = c.Floats(DType::kF32, {4, 2, 8});
  c.a.v_new = c.Floats(DType::kF32, {4, 2, 4});
  c.a.cu_seqlens_new = c.Ints({0, 3, 3, 4});
  c.a.rotary_cos = c.Floats(DType::kF32, {10, 4});
  c.a.rotary_sin = c.Floats(DType::kF32, {10, 4});
  c.a.rotary_seqlens = c.Ints({7, 9, 0});
  return c;
}

// Holds call.Resolve() to an Error of this field, whose value and expectation contain these words.
template <class SomeCall>
void ExpectRefused(const SomeCall& call, const char* field, const char* value, const char* expected) {
  try {
    call.Resolve();
    ADD_FAILURE() << "accepted; should have refused " << field << " " << value;
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), field) << e.what();
    EXPECT_NE(e.value().find(value), std::string::npos) << e.what() << "\n  should say: " << value;
    EXPECT_NE(e.expected().find(expected), std::string::npos) << e.what() << "\n  should say: " << expected;
  }
}

}  // namespace regard::testing
