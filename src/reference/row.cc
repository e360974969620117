// The steps of docs/semantics.md for one query row, in their order.
//
// Corner rules, the same for both roundings: a visible key whose final score is -inf has weight 0 and its v is not
// read; a NaN or +inf score makes the whole row NaN; a row whose every score is -inf is a row without keys.
#include "src/reference/row.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "src/reference/arithmetic.h"
#include "src/reference/reference.h"
#include "src/reference/rotary.h"
#include "src/reference/visible.h"

namespace regard::reference {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

float DescaleOf(const std::optional<TensorView>& descale, std::int64_t b, std::int64_t kv_head) {
  return descale ? *descale->At<float>(b, kv_head) : 1.0f;
}

// Row i of q (or qv), `dim` values, as exact f32.
std::vector<float> LoadQuery(const TensorView& q, const Sequence& s, std::int64_t b, std::int64_t h, std::int64_t i,
                             std::int64_t dim) {
  const void* row = q.rank == 3 ? q.At(s.q_row + i, h) : q.At(b, i, h);
  std::vector<float> x(dim);
  for (std::int64_t c = 0; c < dim; ++c) x[c] = LoadFloat(row, q.dtype, c);
  return x;
}

// Steps 1 to 4: the final score of query i against each of `keys`.
template <class T>
std::vector<T> Scores(const Call& call, const KvHead& kv, std::int64_t b, std::int64_t h, std::int64_t i,
                      const std::vector<std::int64_t>& keys) {
  const Problem& p = call.p;
  const AttentionArgs& args = call.args;
  const Sequence& s = call.sequences[b];
  const std::int64_t kv_head = h / p.Group();

  // 1. s = scale * (dot(q, k) [+ dot(qv, v)]); the factors of fp8 are those of the real numbers.
  std::vector<float> q = LoadQuery(args.q, s, b, h, i, call.D());
  if (p.options.rotary != Rotary::kNone && args.k_new) {
    Rotate(q.data(), p.options.rotary, *args.rotary_cos, *args.rotary_sin,
           QueryRotaryPosition(p.options, s.rotary_base, i));
    for (float& x : q) x = Round(args.q.dtype, x);
  }
  const T q_descale = DescaleOf(args.q_descale, b, kv_head);
  const T k_factor = q_descale * static_cast<T>(DescaleOf(args.k_descale, b, kv_head));
  std::vector<T> score(keys.size());
  Dots(q.data(), call.D(), kv.k.data(), kv.begin, keys, score);
  for (T& x : score) x *= k_factor;
  if (args.qv) {
    const T v_factor = q_descale * static_cast<T>(DescaleOf(args.v_descale, b, kv_head));
    std::vector<T> second(keys.size());
    Dots(LoadQuery(*args.qv, s, b, h, i, call.Dv()).data(), call.Dv(), kv.v.data(), kv.begin, keys, second);
    for (std::size_t n = 0; n < keys.size(); ++n) score[n] += v_factor * second[n];
  }
  const T scale = static_cast<T>(p.Scale());
  for (T& x : score) x = Round(InputType(p), x * scale);

  // 2. softcap
  if (p.options.softcap > 0) {
    const T cap = static_cast<T>(p.options.softcap);
    for (T& x : score) x = cap * std::tanh(x / cap);
  }
  // 3. ALiBi and bias
  if (args.alibi_slopes) {
    const TensorView& slopes = *args.alibi_slopes;
    const T slope = slopes.rank == 2 ? *slopes.At<float>(b, h) : *slopes.At<float>(h);
    for (std::size_t n = 0; n < keys.size(); ++n) {
      score[n] -= slope * static_cast<T>(std::abs(i + s.q_offset - keys[n]));
    }
  }
  if (args.bias) {
    for (std::size_t n = 0; n < keys.size(); ++n) {
      score[n] += static_cast<T>(LoadFloat(Broadcast(*args.bias, b, h, i, keys[n]), args.bias->dtype, 0));
    }
  }
  // 4. score_mod, an f32 function
  if (args.score_mod.fn) {
    for (std::size_t n = 0; n < keys.size(); ++n) {
      score[n] = args.score_mod.fn(args.score_mod.ctx, static_cast<float>(score[n]), b, h, i, keys[n]);
    }
  }
  return score;
}

}  // namespace

bool Keeps(const Call& call, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  const Sequence& s = call.sequences[b];
  const AttentionArgs& args = call.args;
  const auto key_index = static_cast<std::uint32_t>(j - s.leftpad);
  const auto query_index = static_cast<std::uint32_t>(i + s.q_offset - s.leftpad);
  const auto head_index = static_cast<std::uint32_t>(b * call.p.heads_q + h);
  const std::uint64_t key = args.dropout_seed ^ (args.dropout_offset >> 32 << 32);
  const Philox random =
      Philox4x32(key_index / 4, query_index, head_index, static_cast<std::uint32_t>(args.dropout_offset), key);
  const auto threshold = static_cast<std::uint64_t>(std::floor(call.p.options.dropout * 4294967296.0));
  return random.v[key_index % 4] >= threshold;
}

KvHead LoadKvHead(const Call& call, std::int64_t b, std::int64_t kv_head, std::int64_t i_begin, std::int64_t i_end) {
  const Sequence& s = call.sequences[b];
  const auto seen = [&](std::int64_t j) {
    for (std::int64_t i = i_begin; i < i_end; ++i) {
      if (InRange(call.p.options, s, i, j)) return true;
    }
    return false;
  };
  KvHead kv;
  kv.end = s.seq_kv;
  while (kv.begin < kv.end && !seen(kv.begin)) ++kv.begin;
  while (kv.begin < kv.end && !seen(kv.end - 1)) --kv.end;

  const auto load = [&](const TensorView& t, std::int64_t dim) {
    std::vector<float> x((kv.end - kv.begin) * dim);
    for (std::int64_t j = kv.begin; j < kv.end; ++j) {
      const std::int64_t first = KvTokenOffset(call.p, call.args, s, t, j) + kv_head * KvHeadStride(call.p, t);
      for (std::int64_t c = 0; c < dim; ++c) x[(j - kv.begin) * dim + c] = LoadFloat(t.data, t.dtype, first + c);
    }
    return x;
  };
  kv.k = load(call.args.k, call.D());
  kv.v = load(call.args.v, call.Dv());
  return kv;
}

template <class T>
RowStats AttendRow(const Call& call, const KvHead& kv, std::int64_t b, std::int64_t h, std::int64_t i, double* out) {
  const Problem& p = call.p;
  const AttentionArgs& args = call.args;
  const Sequence& s = call.sequences[b];
  std::fill_n(out, call.Dv(), 0.0);
  if (i >= s.seq_q) return {-kInf, 0};

  std::vector<std::int64_t> keys;
  for (std::int64_t j = kv.begin; j < kv.end; ++j) {
    if (Visible(p.options, args, s, b, h, i, j)) keys.push_back(j);
  }
  const std::vector<T> score = Scores<T>(call, kv, b, h, i, keys);
  const T sink = args.sink ? static_cast<T>(LoadFloat(args.sink->At(h), args.sink->dtype, 0)) : static_cast<T>(-kInf);

  RowStats stats;
  T top = sink;
  for (const T x : score) {
    if (std::isnan(x) || x > top) top = x;  // a NaN, once in, stays
    if (std::isfinite(x)) stats.max_abs_score = std::max<double>(stats.max_abs_score, std::abs(x));
  }
  if (std::isnan(top) || top == static_cast<T>(kInf)) {
    std::fill_n(out, call.Dv(), kNan);
    return {kNan, stats.max_abs_score};
  }
  if (top == static_cast<T>(-kInf)) return {-kInf, stats.max_abs_score};

  // Softmax. LSE is that of the undropped row.
  std::vector<T> weight(keys.size());
  T total = 0;
  for (std::size_t n = 0; n < keys.size(); ++n) total += weight[n] = std::exp(score[n] - top);
  total += std::exp(sink - top);
  stats.lse = top + std::log(total);

  // Output: kept probabilities are scaled up, a sink adds no value, v's descale comes at the end.
  const double dropout = p.options.dropout;
  if (dropout == 1) return stats;
  std::vector<T> sum(call.Dv());
  for (std::size_t n = 0; n < keys.size(); ++n) {
    if (score[n] == static_cast<T>(-kInf)) continue;
    T probability = weight[n] / total;
    if (dropout > 0) {
      probability = Keeps(call, b, h, i, keys[n]) ? probability / static_cast<T>(1 - dropout) : static_cast<T>(0);
    }
    probability = Round(InputType(p), probability);
    const float* v = &kv.v[(keys[n] - kv.begin) * call.Dv()];
    for (std::int64_t c = 0; c < call.Dv(); ++c) sum[c] += probability * static_cast<T>(v[c]);
  }
  const T v_descale = DescaleOf(args.v_descale, b, h / p.Group());
  for (std::int64_t c = 0; c < call.Dv(); ++c) out[c] = Round(p.OutType(), sum[c] * v_descale);
  return stats;
}

template RowStats AttendRow<double>(const Call&, const KvHead&, std::int64_t, std::int64_t, std::int64_t, double*);
template RowStats AttendRow<float>(const Call&, const KvHead&, std::int64_t, std::int64_t, std::int64_t, double*);

}  // namespace regard::reference
