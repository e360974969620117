// The backward half of a generated case: gradients that come in, memory for those that go out, and the forward pass whose
// out and lse the backward pass reads.
#include <limits>

#include "src/cases/builder.h"
#include "src/cases/oracle.h"

namespace regard::cases {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Elements (b, h, i) of lse or dlse, and (b, i, h, 0) of out or dout; packed: of row `first` + i.
std::int64_t LseOffset(const TensorView& t, std::int64_t b, std::int64_t first, std::int64_t h, std::int64_t i) {
  if (t.rank == 2) return h * t.stride[0] + (first + i) * t.stride[1];
  return b * t.stride[0] + h * t.stride[1] + i * t.stride[2];
}
std::int64_t OutOffset(const TensorView& t, std::int64_t b, std::int64_t first, std::int64_t h, std::int64_t i) {
  if (t.rank == 3) return (first + i) * t.stride[0] + h * t.stride[1];
  return b * t.stride[0] + i * t.stride[1] + h * t.stride[2];
}

}  // namespace

void Builder::MakeGradients() {
  BackwardArgs& call = impl_->call;
  const auto like = [&](DType dtype, const TensorView& t) {
    return t.rank == 3 ? NewTensor(dtype, {t.shape[0], t.shape[1], t.shape[2]})
                       : NewDense(dtype, t.shape[0], t.shape[1], t.shape[2], t.shape[3]);
  };
  call.dout = like(rare() ? DType::kF32 : p_.dtype, args_.out);
  const TensorView& lse = *args_.lse;
  if (p_.dlse) {
    call.dlse = lse.rank == 2 ? NewTensor(DType::kF32, {lse.shape[0], lse.shape[1]})
                              : NewTensor(DType::kF32, {lse.shape[0], lse.shape[1], lse.shape[2]});
  }
  call.dq = like(p_.GradType(), args_.q);
  call.dk = like(p_.GradType(), args_.k);
  call.dv = like(p_.GradType(), args_.v);
  if (p_.dbias) {
    const TensorView& bias = *args_.bias;
    call.dbias = NewTensor(rare() ? bias.dtype : DType::kF32, {bias.shape[0], bias.shape[1], bias.shape[2], bias.shape[3]});
  }
  if (p_.dsink) call.dsink = NewTensor(DType::kF32, {p_.heads_q});
}

void Builder::FillGradients(const std::vector<Sequence>& sequences) {
  const BackwardArgs& call = impl_->call;
  const auto size = static_cast<std::int64_t>(SizeOf(call.dout.dtype));
  for (std::int64_t b = 0; b < p_.batch; ++b) {
    const Sequence& s = sequences[static_cast<std::size_t>(b)];
    for (std::int64_t i = 0; i < s.seq_q; ++i) {
      for (std::int64_t h = 0; h < p_.heads_q; ++h) {
        FillNormal(static_cast<std::byte*>(call.dout.data) + OutOffset(call.dout, b, s.q_row, h, i) * size,
                   call.dout.dtype, p_.head_dim_v, 1, Key(p_.seed, Stream::kDout, b, h, i));
        if (!call.dlse) continue;
        FillNormal(static_cast<float*>(call.dlse->data) + LseOffset(*call.dlse, b, s.q_row, h, i), DType::kF32, 1, 1,
                   Key(p_.seed, Stream::kDlse, b, h, i));
      }
    }
  }
}

void Builder::RunForward(const std::vector<Sequence>& sequences) {
  AttentionArgs forward = args_;
  CallControl control;
  control.choice = SampledRows(p_) == 0 ? KernelChoice{{"reference"}, {}} : KernelChoice{};
  Attention(forward, p_.options, true, control);
  // A backward kernel reads nothing that no query owns.
  const auto poison = [&](std::int64_t b, std::int64_t row, std::int64_t i) {
    for (std::int64_t h = 0; h < p_.heads_q; ++h) {
      StoreFloat(args_.lse->data, DType::kF32, LseOffset(*args_.lse, b, row, h, i), kNan);
      const std::int64_t first = OutOffset(args_.out, b, row, h, i);
      for (std::int64_t c = 0; c < p_.head_dim_v; ++c) StoreFloat(args_.out.data, args_.out.dtype, first + c, kNan);
    }
  };
  std::int64_t owned = 0;
  for (std::int64_t b = 0; b < p_.batch; ++b) {
    const Sequence& s = sequences[static_cast<std::size_t>(b)];
    for (std::int64_t i = s.seq_q; i < s.rows; ++i) poison(b, s.q_row, i);
    owned = s.q_row + s.rows;
  }
  for (std::int64_t row = owned; p_.varlen && row < args_.q.shape[0]; ++row) poison(0, 0, row);
}

}  // namespace regard::cases
