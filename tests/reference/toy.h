// A tiny attention call for the oracle's tests: random dense f32 tensors with every field open to change.
// Owns its tensors; views point into it. Sequences are filled by hand, so that no other part of regard takes part.
#pragma once

#include <algorithm>
#include <cmath>
#include <deque>
#include <initializer_list>
#include <limits>
#include <random>
#include <vector>

#include "src/reference/reference.h"

namespace regard::reference {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr float kNanF = std::numeric_limits<float>::quiet_NaN();

struct Toy {
  Problem p;
  AttentionArgs args;
  std::vector<Sequence> sequences;

  Toy(std::int64_t batch, std::int64_t seq_q, std::int64_t seq_kv, std::int64_t heads_q, std::int64_t heads_kv,
      std::int64_t d, std::int64_t dv, unsigned seed = 7)
      : random_(seed) {
    p.batch = batch, p.seq_q = seq_q, p.seq_kv = seq_kv, p.heads_q = heads_q, p.heads_kv = heads_kv;
    p.head_dim = d, p.head_dim_v = dv;
    args.q = Random({batch, seq_q, heads_q, d});
    args.k = Random({batch, seq_kv, heads_kv, d});
    args.v = Random({batch, seq_kv, heads_kv, dv});
    args.out = Random({batch, seq_q, heads_q, dv});
    for (std::int64_t b = 0; b < batch; ++b) {
      Sequence s;
      s.rows = s.seq_q = seq_q;
      s.seq_kv = seq_kv;
      s.q_offset = seq_kv - seq_q;
      s.kv_row = b;
      sequences.push_back(s);
    }
  }
  Toy(const Toy&) = delete;

  // A new f32 tensor of normal numbers.
  TensorView Random(std::initializer_list<std::int64_t> shape) {
    std::normal_distribution<float> normal;
    std::int64_t n = 1;
    for (const std::int64_t x : shape) n *= x;
    std::vector<float>& x = floats_.emplace_back(n);
    for (float& value : x) value = normal(random_);
    return TensorView::Contiguous(x.data(), DType::kF32, shape);
  }
  TensorView Floats(std::vector<float> values, std::initializer_list<std::int64_t> shape) {
    return TensorView::Contiguous(floats_.emplace_back(std::move(values)).data(), DType::kF32, shape);
  }
  TensorView Ints(std::vector<std::int32_t> values) {
    std::vector<std::int32_t>& x = ints_.emplace_back(std::move(values));
    return TensorView::Contiguous(x.data(), DType::kI32, {static_cast<std::int64_t>(x.size())});
  }
  TensorView Bytes(std::vector<std::uint8_t> values, DType type, std::initializer_list<std::int64_t> shape) {
    return TensorView::Contiguous(bytes_.emplace_back(std::move(values)).data(), type, shape);
  }
  // A contiguous copy of a contiguous tensor in another element type.
  TensorView As(const TensorView& t, DType type) {
    std::vector<std::uint8_t>& x = bytes_.emplace_back(t.Elements() * SizeOf(type) + 1);
    for (std::int64_t n = 0; n < t.Elements(); ++n) StoreFloat(x.data(), type, n, LoadFloat(t.data, t.dtype, n));
    TensorView copy = t;
    copy.data = x.data();
    copy.dtype = type;
    return copy;
  }
  Result Run(Rounding rounding = Rounding::kExact) const { return Forward(p, args, sequences, rounding); }

 private:
  std::mt19937 random_;
  std::deque<std::vector<float>> floats_;
  std::deque<std::vector<std::int32_t>> ints_;
  std::deque<std::vector<std::uint8_t>> bytes_;
};

// Largest difference; infinite unless NaN, inf and sizes agree.
inline double Distance(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return kInf;
  double worst = 0;
  for (std::size_t n = 0; n < a.size(); ++n) {
    if (std::isnan(a[n]) && std::isnan(b[n])) continue;
    if (a[n] == b[n]) continue;
    const double difference = std::abs(a[n] - b[n]);
    worst = std::isnan(difference) ? kInf : std::max(worst, difference);
  }
  return worst;
}
inline double Distance(const Result& a, const Result& b) {
  return std::max(Distance(a.out, b.out), Distance(a.lse, b.lse));
}

}  // namespace regard::reference
