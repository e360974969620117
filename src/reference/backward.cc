// The sums of backward.h, and the gradients of a whole call from them.
#include "src/reference/backward.h"

#include <cmath>
#include <limits>

#include "src/reference/arithmetic.h"
#include "src/reference/each_row.h"
#include "src/reference/visible.h"

namespace regard::reference {
namespace {

// Row-major elements of a view, exactly.
std::vector<double> Elements(const TensorView& t) {
  std::vector<double> x(static_cast<std::size_t>(t.Elements()));
  for (std::size_t n = 0; n < x.size(); ++n) {
    auto rest = static_cast<std::int64_t>(n);
    std::int64_t offset = 0;
    for (int d = t.rank - 1; d >= 0; --d) {
      offset += rest % t.shape[d] * t.stride[d];
      rest /= t.shape[d];
    }
    x[n] = LoadFloat(t.data, t.dtype, offset);
  }
  return x;
}

// Row i of head h of a tensor that lies as q or k does; `first` is the sequence's first row where it is packed.
void LoadRow(const TensorView& t, std::int64_t b, std::int64_t first, std::int64_t i, std::int64_t h, std::int64_t dim,
             float* x) {
  const void* row = t.rank == 3 ? t.At(first + i, h) : t.At(b, i, h);
  for (std::int64_t c = 0; c < dim; ++c) x[c] = LoadFloat(row, t.dtype, c);
}

}  // namespace

template <class T>
HeadBackward<T>::HeadBackward(const Problem& p, const BackwardArgs& args, const std::vector<Sequence>& sequences,
                              const Result& forward, std::int64_t b, std::int64_t kv_head)
    : call_{p, args.forward, sequences},
      sequence_(sequences[static_cast<std::size_t>(b)]),
      b_(b),
      first_head_(kv_head * p.Group()) {
  const AttentionArgs& f = args.forward;
  const Sequence& s = sequence_;
  const std::int64_t dim = p.head_dim, dim_v = p.head_dim_v, group = p.Group();
  k_.resize(static_cast<std::size_t>(s.seq_kv * dim));
  v_.resize(static_cast<std::size_t>(s.seq_kv * dim_v));
  for (std::int64_t j = 0; j < s.seq_kv; ++j) {
    LoadRow(f.k, b, s.kv_row, j, kv_head, dim, &k_[j * dim]);
    LoadRow(f.v, b, s.kv_row, j, kv_head, dim_v, &v_[j * dim_v]);
  }
  const std::int64_t rows = group * s.seq_q;
  q_.resize(static_cast<std::size_t>(rows * dim));
  dout_.resize(static_cast<std::size_t>(rows * dim_v));
  lse_.resize(static_cast<std::size_t>(rows));
  dlse_.resize(static_cast<std::size_t>(rows));
  delta_.resize(static_cast<std::size_t>(rows));
  const bool packed = f.q.rank == 3;
  const std::int64_t seq = f.q.shape[packed ? 0 : 1];  // all rows of packed q
  for (std::int64_t h = first_head_; h < first_head_ + group; ++h) {
    for (std::int64_t i = 0; i < s.seq_q; ++i) {
      const std::int64_t n = Row(h, i), row = packed ? s.q_row + i : b * seq + i;
      LoadRow(f.q, b, s.q_row, i, h, dim, &q_[n * dim]);
      LoadRow(args.dout, b, s.q_row, i, h, dim_v, &dout_[n * dim_v]);
      lse_[n] = static_cast<T>(forward.lse[packed ? h * seq + row : (b * p.heads_q + h) * seq + i]);
      if (args.dlse) dlse_[n] = packed ? *args.dlse->At<float>(h, row) : *args.dlse->At<float>(b, h, i);
      const double* out = &forward.out[(row * p.heads_q + h) * dim_v];
      for (std::int64_t c = 0; c < dim_v; ++c) {
        delta_[n] += static_cast<T>(dout_[n * dim_v + c]) * static_cast<T>(out[c]);
      }
    }
  }
}

template <class T>
bool HeadBackward<T>::Sees(std::int64_t h, std::int64_t i, std::int64_t j) const {
  return Visible(call_.p.options, call_.args, sequence_, b_, h, i, j);
}

template <class T>
typename HeadBackward<T>::Pair HeadBackward<T>::PairOf(std::int64_t h, std::int64_t i, std::int64_t j, T query_key,
                                                       T dout_value) const {
  constexpr T kNone = -std::numeric_limits<T>::infinity();
  const Problem& p = call_.p;
  const AttentionArgs& args = call_.args;
  const DType type = InputType(p);
  const std::int64_t row = Row(h, i);

  // The score, steps 1 to 3.
  T s = Round(type, query_key * static_cast<T>(p.Scale()));
  T slope_of_cap = 1;
  if (p.options.softcap > 0) {
    const T cap = static_cast<T>(p.options.softcap);
    const T t = std::tanh(s / cap);
    s = cap * t;
    slope_of_cap = 1 - t * t;
  }
  if (args.alibi_slopes) {
    const TensorView& slopes = *args.alibi_slopes;
    const T slope = slopes.rank == 2 ? *slopes.At<float>(b_, h) : *slopes.At<float>(h);
    s -= slope * static_cast<T>(std::abs(i + sequence_.q_offset - j));
  }
  if (args.bias) s += static_cast<T>(LoadFloat(Broadcast(*args.bias, b_, h, i, j), args.bias->dtype, 0));
  if (s == kNone || lse_[row] == kNone) return {};

  const T probability = Round(type, std::exp(s - lse_[row]));
  T kept = 1;
  const double dropout = p.options.dropout;
  if (dropout > 0) kept = Keeps(call_, b_, h, i, j) ? 1 / static_cast<T>(1 - dropout) : static_cast<T>(0);
  const T probability_gradient = Round(type, kept * dout_value);
  Pair pair;
  pair.counts = true;
  pair.weight = Round(type, kept * probability);
  pair.score = Round(type, probability * (probability_gradient - delta_[row] + dlse_[row]));
  pair.product = Round(type, pair.score * slope_of_cap);
  return pair;
}

template <class T>
std::vector<typename HeadBackward<T>::Pair> HeadBackward<T>::PairsOfQuery(std::int64_t h, std::int64_t i,
                                                                          std::vector<std::int64_t>& keys) const {
  keys.clear();
  for (std::int64_t j = 0; j < sequence_.seq_kv; ++j) {
    if (Sees(h, i, j)) keys.push_back(j);
  }
  std::vector<T> query_key(keys.size()), dout_value(keys.size());
  const std::int64_t row = Row(h, i), dim = call_.D(), dim_v = call_.Dv();
  Dots(&q_[row * dim], dim, k_.data(), 0, keys, query_key);
  Dots(&dout_[row * dim_v], dim_v, v_.data(), 0, keys, dout_value);
  std::vector<Pair> pairs(keys.size());
  for (std::size_t n = 0; n < keys.size(); ++n) pairs[n] = PairOf(h, i, keys[n], query_key[n], dout_value[n]);
  return pairs;
}

template <class T>
void HeadBackward<T>::QueryRow(std::int64_t h, std::int64_t i, double* dq) const {
  std::vector<std::int64_t> keys;
  const std::vector<Pair> pairs = PairsOfQuery(h, i, keys);
  const std::int64_t dim = call_.D();
  std::vector<T> sum(static_cast<std::size_t>(dim));
  for (std::size_t n = 0; n < keys.size(); ++n) {
    if (!pairs[n].counts) continue;
    const float* k = &k_[keys[n] * dim];
    for (std::int64_t c = 0; c < dim; ++c) sum[c] += pairs[n].product * static_cast<T>(k[c]);
  }
  const T scale = static_cast<T>(call_.p.Scale());
  for (std::int64_t c = 0; c < dim; ++c) dq[c] = Round(call_.p.GradType(), scale * sum[c]);
}

template <class T>
void HeadBackward<T>::KeyRow(std::int64_t j, double* dk, double* dv) const {
  const std::int64_t dim = call_.D(), dim_v = call_.Dv();
  std::vector<T> sum_k(static_cast<std::size_t>(dim)), sum_v(static_cast<std::size_t>(dim_v));
  std::vector<std::int64_t> queries;
  std::vector<T> query_key, dout_value;
  for (std::int64_t h = first_head_; h < first_head_ + call_.p.Group(); ++h) {
    queries.clear();
    for (std::int64_t i = 0; i < sequence_.seq_q; ++i) {
      if (Sees(h, i, j)) queries.push_back(i);
    }
    query_key.resize(queries.size());
    dout_value.resize(queries.size());
    Dots(&k_[j * dim], dim, q_.data() + Row(h, 0) * dim, 0, queries, query_key);
    Dots(&v_[j * dim_v], dim_v, dout_.data() + Row(h, 0) * dim_v, 0, queries, dout_value);
    for (std::size_t n = 0; n < queries.size(); ++n) {
      const Pair pair = PairOf(h, queries[n], j, query_key[n], dout_value[n]);
      if (!pair.counts) continue;
      const float* q = &q_[Row(h, queries[n]) * dim];
      const float* dout = &dout_[Row(h, queries[n]) * dim_v];
      for (std::int64_t c = 0; c < dim; ++c) sum_k[c] += pair.product * static_cast<T>(q[c]);
      for (std::int64_t c = 0; c < dim_v; ++c) sum_v[c] += pair.weight * static_cast<T>(dout[c]);
    }
  }
  const T scale = static_cast<T>(call_.p.Scale());
  for (std::int64_t c = 0; c < dim; ++c) dk[c] = Round(call_.p.GradType(), scale * sum_k[c]);
  for (std::int64_t c = 0; c < dim_v; ++c) dv[c] = Round(call_.p.GradType(), sum_v[c]);
}

template <class T>
void HeadBackward<T>::BiasTerms(std::int64_t h, std::int64_t i,
                                const std::function<void(std::int64_t, T)>& term) const {
  std::vector<std::int64_t> keys;
  const std::vector<Pair> pairs = PairsOfQuery(h, i, keys);
  for (std::size_t n = 0; n < keys.size(); ++n) {
    if (pairs[n].counts) term(keys[n], pairs[n].score);
  }
}

template <class T>
T HeadBackward<T>::SinkTerm(std::int64_t h, std::int64_t i) const {
  const std::int64_t row = Row(h, i);
  if (lse_[row] == -std::numeric_limits<T>::infinity()) return 0;
  const T sink = LoadFloat(call_.args.sink->At(h), call_.args.sink->dtype, 0);
  return std::exp(sink - lse_[row]) * (dlse_[row] - delta_[row]);
}

template class HeadBackward<double>;
template class HeadBackward<float>;

namespace {

template <class T>
Gradients GradientsOf(const Problem& p, const BackwardArgs& args, const std::vector<Sequence>& sequences,
                      const Result& forward) {
  const AttentionArgs& f = args.forward;
  const bool packed = f.q.rank == 3;
  const std::int64_t seq_q = f.q.shape[packed ? 0 : 1], seq_kv = f.k.shape[packed ? 0 : 1], group = p.Group();
  Gradients result;
  result.dq.assign(f.q.Elements(), 0.0);
  result.dk.assign(f.k.Elements(), 0.0);
  result.dv.assign(f.v.Elements(), 0.0);
  // Summed in the order of the sequences, heads, queries and keys, whatever the number of threads.
  std::vector<T> dbias(args.dbias ? f.bias->Elements() : 0), dsink(args.dsink ? p.heads_q : 0);
  const auto bias_index = [&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
    const auto& shape = f.bias->shape;
    const auto at = [&shape](int d, std::int64_t n) { return shape[d] == 1 ? 0 : n; };
    return ((at(0, b) * shape[1] + at(1, h)) * shape[2] + at(2, i)) * shape[3] + at(3, j);
  };

  for (std::int64_t b = 0; b < BatchOf(f); ++b) {
    const Sequence& s = sequences[b];
    for (std::int64_t kv_head = 0; kv_head < p.heads_kv; ++kv_head) {
      const HeadBackward<T> head(p, args, sequences, forward, b, kv_head);
      const double work = static_cast<double>(s.seq_q * group) * static_cast<double>(s.seq_kv * (p.head_dim + p.head_dim_v));
      ForEachRow(s.seq_q * group, work, [&](std::int64_t n) {
        const std::int64_t i = n / group, h = kv_head * group + n % group;
        const std::int64_t row = packed ? s.q_row + i : b * seq_q + i;
        head.QueryRow(h, i, &result.dq[(row * p.heads_q + h) * p.head_dim]);
      });
      ForEachRow(s.seq_kv, work, [&](std::int64_t j) {
        const std::int64_t row = (packed ? s.kv_row + j : b * seq_kv + j) * p.heads_kv + kv_head;
        head.KeyRow(j, &result.dk[row * p.head_dim], &result.dv[row * p.head_dim_v]);
      });
      for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
        for (std::int64_t i = 0; i < s.seq_q; ++i) {
          if (args.dsink) dsink[h] += head.SinkTerm(h, i);
          if (!args.dbias) continue;
          head.BiasTerms(h, i, [&](std::int64_t j, T term) { dbias[bias_index(b, h, i, j)] += term; });
        }
      }
    }
  }
  for (const T x : dbias) result.dbias.push_back(Round(args.dbias->dtype, x));
  for (const T x : dsink) result.dsink.push_back(x);
  return result;
}

}  // namespace

Result StoredForward(const AttentionArgs& args) { return {Elements(args.out), Elements(*args.lse)}; }

Gradients Backward(const Problem& p, const BackwardArgs& args, const std::vector<Sequence>& sequences,
                   const Result& forward, Rounding rounding) {
  const FpModeGuard mode;
  return rounding == Rounding::kExact ? GradientsOf<double>(p, args, sequences, forward)
                                      : GradientsOf<float>(p, args, sequences, forward);
}

}  // namespace regard::reference
