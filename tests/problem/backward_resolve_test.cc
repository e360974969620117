// ResolveBackward: every refusal by field, value and expectation; and hostile views, which it refuses or which stay
// inside their buffers.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <random>
#include <utility>
#include <vector>

#include "regard/status.h"
#include "src/problem/checks.h"
#include "tests/problem/sample_calls.h"

namespace regard {
namespace {

using testing::Call;

struct Backward {
  Call call;  // owns the memory; its `a` is copied into args.forward
  BackwardArgs args;

  std::vector<Sequence> Resolve() const {
    std::vector<Sequence> sequences(static_cast<std::size_t>(call.p.batch));
    ResolveBackward(call.p, args, true, sequences);
    sequences.resize(static_cast<std::size_t>(BatchOf(args.forward)));
    return sequences;
  }
};

TensorView Like(Call& c, DType dtype, const TensorView& t) {
  TensorView v = t;
  v.data = c.Floats(dtype, {t.Elements()}).data;
  v.dtype = dtype;
  return v;
}

Backward WithGradients(Call call) {
  Backward b{std::move(call), {}};
  Call& c = b.call;
  c.p.phase = Phase::kBackward;
  c.p.lse = c.p.qv = false;
  c.a.qv.reset();
  b.args.forward = c.a;
  b.args.dout = Like(c, DType::kF32, c.a.out);
  b.args.dlse = Like(c, DType::kF32, *c.a.lse);
  b.args.dq = Like(c, DType::kF32, c.a.q);
  b.args.dk = Like(c, DType::kF32, c.a.k);
  b.args.dv = Like(c, DType::kF32, c.a.v);
  if (c.a.bias) b.args.dbias = Like(c, DType::kF32, *c.a.bias);
  if (c.a.sink) b.args.dsink = Like(c, DType::kF32, *c.a.sink);
  c.p.dlse = true;
  c.p.dbias = b.args.dbias.has_value();
  c.p.dsink = b.args.dsink.has_value();
  return b;
}

// 3 x 2 queries over 5 keys with slopes, bf16 bias, mask, sink, offsets, padding and used lengths.
Backward Dense() { return WithGradients(testing::DenseCall()); }
Backward Packed() { return WithGradients(testing::PackedCall()); }

struct Refusal {
  Backward (*make)();
  void (*spoil)(Backward&);
  const char* field;
  const char* value;     // part of it
  const char* expected;  // part of it
};

TEST(ResolveBackward, SoundCallsPassWithTheForwardLengths) {
  const std::vector<Sequence> dense = Dense().Resolve();
  ASSERT_EQ(dense.size(), 3u);
  EXPECT_EQ(dense[1].seq_kv, 3);
  EXPECT_EQ(dense[1].leftpad, 3);
  const std::vector<Sequence> packed = Packed().Resolve();
  EXPECT_EQ(packed[2].q_row, 2);
  EXPECT_EQ(packed[2].kv_row, 7);
}

TEST(ResolveBackward, EveryRefusalNamesFieldValueAndExpectation) {
  const Refusal refusals[] = {
      {Dense, [](Backward& b) { b.args.forward.lse.reset(); }, "lse", "absent", "a backward pass"},
      {Dense, [](Backward& b) { b.args.forward.out.data = nullptr; }, "out.data", "null", "an address"},
      {Dense, [](Backward& b) { b.args.dout.data = nullptr; }, "dout.data", "null", "an address"},
      {Dense, [](Backward& b) { b.args.dq.data = nullptr; }, "dq.data", "null", "an address"},
      {Dense, [](Backward& b) { b.args.dout.dtype = DType::kF16; }, "dout.dtype", "f16", "f32"},
      {Dense, [](Backward& b) { b.args.dout.shape[1] = 1; }, "dout.shape", "(3, 1, 4, 4)", "the shape of out"},
      {Dense, [](Backward& b) { b.args.dout.rank = 3; }, "dout.shape", "f32 (3, 2, 4)", "the shape of out"},
      {Dense, [](Backward& b) { b.args.dlse->dtype = DType::kBF16; }, "dlse.dtype", "bf16", "f32"},
      {Dense, [](Backward& b) { b.args.dlse->shape[2] = 1; }, "dlse.shape", "(3, 4, 1)", "the shape of lse"},
      {Dense, [](Backward& b) { b.args.dlse.reset(); }, "dlse", "absent", "dlse in the plan"},
      {Dense, [](Backward& b) { b.call.p.dlse = false; }, "dlse", "given", "no dlse in the plan"},
      {Dense, [](Backward& b) { b.args.dq.dtype = DType::kBF16; }, "dq.dtype", "bf16", "f32"},
      {Dense, [](Backward& b) { b.args.dk.dtype = DType::kF16; }, "dk.dtype", "f16", "f32"},
      {Dense, [](Backward& b) { b.args.dv.dtype = DType::kI32; }, "dv.dtype", "i32", "f32"},
      {Dense, [](Backward& b) { b.args.dk.shape[2] = 1; }, "dk.shape", "(3, 5, 1, 8)", "the shape of k"},
      {Dense, [](Backward& b) { b.args.dv = b.args.dk; }, "dv.shape", "(3, 5, 2, 8)", "the shape of v"},
      {Dense, [](Backward& b) { b.args.dq.stride[3] = 2; }, "dq.stride[3]", "2", "the last dim is contiguous"},
      {Dense, [](Backward& b) { b.args.dk.stride[1] = 0; }, "dk.stride", "share memory", "it is written"},
      {Dense, [](Backward& b) { b.args.dbias->dtype = DType::kF16; }, "dbias.dtype", "f16", "bf16 or f32"},
      {Dense, [](Backward& b) { b.args.dbias->shape[1] = 4; }, "dbias.shape", "(3, 4, 2, 5)", "the shape of bias"},
      {Dense, [](Backward& b) { b.args.dbias.reset(); }, "dbias", "absent", "dbias in the plan"},
      {Dense, [](Backward& b) { b.args.dsink->dtype = DType::kBF16; }, "dsink.dtype", "bf16", "f32"},
      {Dense, [](Backward& b) { b.args.dsink->shape[0] = 2; }, "dsink.shape", "(2)", "the shape of sink"},
      {Dense, [](Backward& b) { b.args.dsink.reset(); }, "dsink", "absent", "dsink in the plan"},
      {Dense, [](Backward& b) { b.args.dq.data = b.args.forward.q.data; }, "dq", "overlaps q", "memory of its own"},
      {Dense, [](Backward& b) { b.args.dk.data = b.args.forward.k.data; }, "dk", "overlaps k", "memory of its own"},
      {Dense, [](Backward& b) { b.args.dv.data = b.args.forward.v.data; }, "dv", "overlaps v", "memory of its own"},
      {Dense, [](Backward& b) { b.args.dq.data = b.args.dk.data; }, "dq", "overlaps dk", "memory of its own"},
      {Dense, [](Backward& b) { b.args.dv.data = b.args.dk.data; }, "dk", "overlaps dv", "memory of its own"},
      {Dense, [](Backward& b) { b.args.forward.out.data = b.args.dq.data; }, "dq", "overlaps out", "memory of its own"},
      {Dense, [](Backward& b) { b.args.dlse->data = b.args.dk.data; }, "dk", "overlaps dlse", "memory of its own"},
      {Dense, [](Backward& b) { b.args.dout.data = b.args.dq.data; }, "dq", "overlaps dout", "memory of its own"},
      {Dense, [](Backward& b) { b.args.dsink->data = b.args.forward.sink->data; }, "dsink", "overlaps sink", "of its own"},
      {Dense, [](Backward& b) { b.args.dbias->data = b.args.dv.data; }, "dv", "overlaps dbias", "memory of its own"},
      {Dense, [](Backward& b) { b.args.dsink->data = b.args.forward.lse->data; }, "dsink", "overlaps lse", "of its own"},
      {Dense, [](Backward& b) { b.args.forward.cache_seqlens = b.call.Ints({5, 3, 0}); }, "cache_seqlens", "given", "seqused_kv"},
      {Dense, [](Backward& b) { b.args.forward.cache_batch_idx = b.call.Ints({0, 1, 2}); }, "cache_batch_idx", "given", "gather"},
      {Dense, [](Backward& b) { b.args.forward.k_new = b.args.forward.k; }, "k_new", "given", "no append"},
      {Dense, [](Backward& b) { b.args.forward.block_table = b.call.Ints({1, 2, 3}, 3); }, "block_table", "given", "pages"},
      {Packed, [](Backward& b) { b.args.dq.shape[0] = 6; }, "dq.shape", "(6, 4, 8)", "the shape of q"},
      {Packed, [](Backward& b) { static_cast<std::int32_t*>(b.args.forward.cu_seqlens_kv->data)[3] = 14; },
       "cu_seqlens_kv[3]", "14", "at most 13"},
      {Packed, [](Backward& b) { b.call.p.grad_dtype = DType::kBF16; }, "dq.dtype", "f32", "bf16"},
  };
  for (const Refusal& r : refusals) {
    Backward b = r.make();
    r.spoil(b);
    testing::ExpectRefused(b, r.field, r.value, r.expected);
  }
}

TEST(ResolveBackward, InputsMayOverlapEachOther) {
  Backward b = Dense();
  b.args.forward.v.data = b.args.forward.k.data;
  b.args.dlse->data = b.args.forward.lse->data;
  b.args.dout.data = b.args.forward.out.data;
  EXPECT_NO_THROW(b.Resolve());
}

TEST(ResolveBackward, GradientsMayBeSlicesOfOneTensor) {
  Backward b = Packed();
  // (13, 2 heads, dk of 8 | dv in a slot of 8): rows of one buffer, each with both.
  const TensorView joint = b.call.Floats(DType::kF32, {13, 32});
  b.args.dk.data = joint.data;
  b.args.dk.stride = {32, 16, 1};
  b.args.dv.data = joint.At(0, 8);
  b.args.dv.stride = {32, 16, 1};
  EXPECT_NO_THROW(b.Resolve());
  b.args.dv.data = joint.At(0, 6);
  EXPECT_THROW(b.Resolve(), Error);
}

// Every view of the call.
std::vector<TensorView*> Views(Backward& b) {
  AttentionArgs& a = b.args.forward;
  std::vector<TensorView*> views = {&a.q, &a.k, &a.v, &a.out, &b.args.dout, &b.args.dq, &b.args.dk, &b.args.dv};
  for (std::optional<TensorView>* t : {&b.args.dlse, &b.args.dbias, &b.args.dsink}) {
    if (*t) views.push_back(&**t);
  }
  for (const checks::Member& m : checks::OptionalMembers()) {
    if (auto& t = a.*m.view) views.push_back(&*t);
  }
  return views;
}

TEST(ResolveBackward, HostileViewsAreRefusedOrTruthful) {
  std::mt19937_64 random(5);
  const auto pick = [&](std::size_t n) { return random() % n; };
  int refused = 0, accepted = 0;
  for (int round = 0; round < 6000; ++round) {
    Backward b = pick(2) ? Dense() : Packed();
    const std::vector<TensorView*> views = Views(b);
    TensorView& t = *views[pick(views.size())];
    const std::int64_t nasty[] = {INT64_MIN, INT64_MAX, -1, 0, 1, INT64_C(1) << 47, INT64_C(1) << 62, 3};
    const auto dim = pick(TensorView::kMaxRank);
    switch (pick(6)) {
      case 0: t.shape[dim] = nasty[pick(std::size(nasty))]; break;
      case 1: t.stride[dim] = nasty[pick(std::size(nasty))]; break;
      case 2: t.rank = static_cast<int>(pick(9)) - 2; break;
      case 3: t.dtype = static_cast<DType>(pick(256)); break;
      case 4: t.data = pick(2) ? nullptr : static_cast<char*>(t.data) + 1; break;
      default: {
        // Index tensors are read, so that what they are pointed at must hold as many bytes.
        const TensorView& other = *views[pick(views.size())];
        const checks::ByteSpan from = checks::TouchedBytes(other), own = checks::TouchedBytes(t);
        if (t.dtype != DType::kI32 || from.end - from.begin >= own.end - own.begin) t.data = other.data;
      }
    }
    try {
      b.Resolve();
      ++accepted;
      // What is written has the shape of what it is the gradient of, and strides that keep its elements apart.
      for (const auto& [gradient, of] : {std::pair{&b.args.dq, &b.args.forward.q}, {&b.args.dk, &b.args.forward.k}}) {
        ASSERT_EQ(gradient->Elements(), of->Elements());
        const checks::ByteSpan span = checks::TouchedBytes(*gradient);
        ASSERT_GE(span.end - span.begin, static_cast<std::uintptr_t>(gradient->Elements()) * SizeOf(gradient->dtype));
      }
    } catch (const Error& e) {
      ++refused;
      EXPECT_FALSE(e.field().empty() || e.value().empty() || e.expected().empty()) << e.what();
    }
  }
  EXPECT_GT(refused, 1500);
  EXPECT_GT(accepted, 300);
}

}  // namespace
}  // namespace regard
