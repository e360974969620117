// See backward_oracle.h. The sums themselves are those of src/reference/backward.h.
#include "src/cases/backward_oracle.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>

#include "src/cases/oracle.h"
#include "src/cases/parallel.h"
#include "src/cases/random.h"
#include "src/reference/backward.h"

namespace regard::cases {
namespace {

using reference::HeadBackward;

constexpr std::int64_t kSampledHeads = 2, kSampledBias = 8;

// Element offset of a run in its tensor: token rows of heads, (b, h, i, j) of a bias, or (h) of a sink.
template <class Run>
std::int64_t OffsetOf(const TensorView& t, const Run& run, bool scores) {
  if (t.rank == 1) return run.h * t.stride[0];
  if (scores) return run.b * t.stride[0] + run.h * t.stride[1] + run.row * t.stride[2] + run.c * t.stride[3];
  if (t.rank == 3) return run.row * t.stride[0] + run.h * t.stride[1] + run.c;
  return run.b * t.stride[0] + run.row * t.stride[1] + run.h * t.stride[2] + run.c;
}

// `count` different numbers of [begin, end), the first and the last among them; all, where there are no more.
std::vector<std::int64_t> Sample(std::int64_t begin, std::int64_t end, std::int64_t count, std::uint64_t key) {
  std::vector<std::int64_t> picked;
  if (end - begin <= count) {
    for (std::int64_t n = begin; n < end; ++n) picked.push_back(n);
    return picked;
  }
  picked = {begin, end - 1};
  for (std::int64_t n = 2; n < count; ++n) picked.push_back(UniformInt(Mix(key + static_cast<std::uint64_t>(n)), begin, end - 1));
  std::sort(picked.begin(), picked.end());
  picked.erase(std::unique(picked.begin(), picked.end()), picked.end());
  return picked;
}

}  // namespace

void BackwardOracle::Part::Add(Run run, const double* exact, const double* low) {
  run.first = expected.size();
  runs.push_back(run);
  expected.insert(expected.end(), exact, exact + run.count);
  for (std::int64_t c = 0; c < run.count; ++c) {
    const double error = std::fabs(low[c] - exact[c]);
    if (std::isfinite(error)) lowprec_error = std::max(lowprec_error, error);
    if (std::isfinite(exact[c])) largest = std::max(largest, std::fabs(exact[c]));
  }
}

BackwardOracle::BackwardOracle(const Problem& p, const BackwardArgs& call, std::int64_t rows, std::uint64_t seed)
    : problem_(p) {
  constexpr const char* kNames[kParts] = {"dq", "dk", "dv", "dbias", "dsink"};
  for (int part = 0; part < kParts; ++part) {
    parts_[part].name = kNames[part];
    parts_[part].sums = part == kDbias || part == kDsink;
  }
  sequences_.resize(static_cast<std::size_t>(std::max<std::int64_t>(BatchOf(call.forward), 0)));
  ResolveBackward(p, call, true, sequences_);
  FindUnused(call);
  if (rows > 0) {
    ComputeSamples(call, rows, seed);
  } else {
    ComputeAll(call);
  }
}

std::int64_t BackwardOracle::QueryRow(std::int64_t b, std::int64_t i) const {
  return problem_.varlen ? sequences_[static_cast<std::size_t>(b)].q_row + i : i;
}
std::int64_t BackwardOracle::KeyRow(std::int64_t b, std::int64_t j) const {
  return problem_.varlen ? sequences_[static_cast<std::size_t>(b)].kv_row + j : j;
}

void BackwardOracle::FindUnused(const BackwardArgs& call) {
  const std::int64_t tensors = problem_.varlen ? 1 : static_cast<std::int64_t>(sequences_.size());
  const auto find = [&](const TensorView& t, bool keys, std::initializer_list<int> parts) {
    const std::int64_t rows = t.shape[problem_.varlen ? 0 : 1], heads = keys ? problem_.heads_kv : problem_.heads_q;
    for (std::int64_t b = 0; b < tensors; ++b) {
      std::vector<bool> used(static_cast<std::size_t>(rows), false);
      for (std::size_t n = 0; n < sequences_.size(); ++n) {
        const Sequence& s = sequences_[n];
        if (!problem_.varlen && static_cast<std::int64_t>(n) != b) continue;
        const std::int64_t first = problem_.varlen ? (keys ? s.kv_row : s.q_row) : 0;
        std::fill_n(used.begin() + first, keys ? s.seq_kv : s.seq_q, true);
      }
      for (std::int64_t row = 0; row < rows; ++row) {
        if (used[static_cast<std::size_t>(row)]) continue;
        for (const int part : parts) {
          const std::int64_t count = part == kDv ? problem_.head_dim_v : problem_.head_dim;
          for (std::int64_t h = 0; h < heads; ++h) parts_[part].zeros.push_back({b, h, row, row, 0, count, 0});
        }
      }
    }
  };
  find(call.forward.q, false, {kDq});
  find(call.forward.k, true, {kDk, kDv});
}

void BackwardOracle::ComputeAll(const BackwardArgs& call) {
  const reference::Result forward = reference::StoredForward(call.forward);
  const reference::Gradients exact = reference::Backward(problem_, call, sequences_, forward);
  const reference::Gradients low =
      reference::Backward(problem_, call, sequences_, forward, reference::Rounding::kLowPrecision);
  const bool packed = problem_.varlen;
  const std::int64_t seq_q = call.forward.q.shape[packed ? 0 : 1], seq_kv = call.forward.k.shape[packed ? 0 : 1];
  for (std::int64_t b = 0; b < static_cast<std::int64_t>(sequences_.size()); ++b) {
    const Sequence& s = sequences_[static_cast<std::size_t>(b)];
    const auto add = [&](int part, const std::vector<double>& e, const std::vector<double>& l, std::int64_t h,
                         std::int64_t i, std::int64_t row, std::int64_t rows, std::int64_t heads, std::int64_t dim) {
      const std::int64_t at = (((packed ? 0 : b * rows) + row) * heads + h) * dim;
      parts_[part].Add({b, h, i, row, 0, dim, 0}, &e[at], &l[at]);
    };
    for (std::int64_t i = 0; i < s.seq_q; ++i) {
      for (std::int64_t h = 0; h < problem_.heads_q; ++h) {
        add(kDq, exact.dq, low.dq, h, i, QueryRow(b, i), seq_q, problem_.heads_q, problem_.head_dim);
      }
    }
    for (std::int64_t j = 0; j < s.seq_kv; ++j) {
      for (std::int64_t h = 0; h < problem_.heads_kv; ++h) {
        add(kDk, exact.dk, low.dk, h, j, KeyRow(b, j), seq_kv, problem_.heads_kv, problem_.head_dim);
        add(kDv, exact.dv, low.dv, h, j, KeyRow(b, j), seq_kv, problem_.heads_kv, problem_.head_dim_v);
      }
    }
  }
  if (call.dbias) {
    const auto& shape = call.dbias->shape;
    for (std::int64_t row = 0; shape[3] > 0 && row < call.dbias->Elements() / shape[3]; ++row) {
      const std::int64_t i = row % shape[2], h = row / shape[2] % shape[1], b = row / shape[2] / shape[1];
      parts_[kDbias].Add({b, h, i, i, 0, shape[3], 0}, &exact.dbias[row * shape[3]], &low.dbias[row * shape[3]]);
    }
  }
  for (std::int64_t h = 0; call.dsink && h < problem_.heads_q; ++h) {
    parts_[kDsink].Add({0, h, 0, 0, 0, 1, 0}, &exact.dsink[h], &low.dsink[h]);
  }
}

void BackwardOracle::ComputeSamples(const BackwardArgs& call, std::int64_t rows, std::uint64_t seed) {
  const reference::Result forward = reference::StoredForward(call.forward);
  const std::int64_t group = problem_.Group(), dim = problem_.head_dim, dim_v = problem_.head_dim_v;
  const auto batch = static_cast<std::int64_t>(sequences_.size());
  const std::vector<std::int64_t> kv_heads = Sample(0, problem_.heads_kv, kSampledHeads, seed);
  const auto parts = batch * static_cast<std::int64_t>(kv_heads.size());
  const std::int64_t each = std::max<std::int64_t>((rows + parts - 1) / std::max<std::int64_t>(parts, 1), 2);

  for (const std::int64_t kv_head : kv_heads) {
    std::vector<double> dsink(static_cast<std::size_t>(group));
    std::vector<float> low_dsink(static_cast<std::size_t>(group));
    for (std::int64_t b = 0; b < batch; ++b) {
      const HeadBackward<double> exact(problem_, call, sequences_, forward, b, kv_head);
      const HeadBackward<float> low(problem_, call, sequences_, forward, b, kv_head);
      const std::uint64_t key = Key(seed, Stream::kSample, b, kv_head);
      const std::vector<std::int64_t> queries = Sample(0, exact.queries() * group, each, key);
      const std::vector<std::int64_t> keys = Sample(0, exact.keys(), each, Mix(key));
      const auto n_queries = static_cast<std::int64_t>(queries.size()), n_keys = static_cast<std::int64_t>(keys.size());
      // Four buffers of rows: exact and low of dq, then of (dk, dv).
      std::vector<double> dq(2 * n_queries * dim), dkv(2 * n_keys * (dim + dim_v));
      const auto query_at = [&](std::int64_t n, int twin) { return dq.data() + (2 * n + twin) * dim; };
      const auto key_at = [&](std::int64_t n, int twin) { return dkv.data() + (2 * n + twin) * (dim + dim_v); };
      const double work = 2.0 * static_cast<double>(dim + dim_v) *
                          (static_cast<double>(n_queries * exact.keys()) + static_cast<double>(n_keys * exact.queries() * group));
      ParallelFor(n_queries + n_keys, work, [&](std::int64_t n) {
        if (n < n_queries) {
          const std::int64_t h = kv_head * group + queries[n] % group, i = queries[n] / group;
          exact.QueryRow(h, i, query_at(n, 0));
          low.QueryRow(h, i, query_at(n, 1));
          return;
        }
        n -= n_queries;
        exact.KeyRow(keys[n], key_at(n, 0), key_at(n, 0) + dim);
        low.KeyRow(keys[n], key_at(n, 1), key_at(n, 1) + dim);
      });
      for (std::int64_t n = 0; n < n_queries; ++n) {
        const std::int64_t h = kv_head * group + queries[n] % group, i = queries[n] / group;
        parts_[kDq].Add({b, h, i, QueryRow(b, i), 0, dim, 0}, query_at(n, 0), query_at(n, 1));
      }
      for (std::int64_t n = 0; n < n_keys; ++n) {
        const Run run = {b, kv_head, keys[n], KeyRow(b, keys[n]), 0, dim, 0};
        Run of_v = run;
        of_v.count = dim_v;
        parts_[kDk].Add(run, key_at(n, 0), key_at(n, 1));
        parts_[kDv].Add(of_v, key_at(n, 0) + dim, key_at(n, 1) + dim);
      }
      for (std::int64_t h = 0; call.dsink && h < group; ++h) {
        for (std::int64_t i = 0; i < exact.queries(); ++i) {
          dsink[h] += exact.SinkTerm(kv_head * group + h, i);
          low_dsink[h] += low.SinkTerm(kv_head * group + h, i);
        }
      }
    }
    for (std::int64_t h = 0; call.dsink && h < group; ++h) {
      const double low = low_dsink[h];
      parts_[kDsink].Add({0, kv_head * group + h, 0, 0, 0, 1, 0}, &dsink[h], &low);
    }
  }
  if (call.dbias) SampleBias(call, kv_heads, seed);
}

void BackwardOracle::SampleBias(const BackwardArgs& call, const std::vector<std::int64_t>& kv_heads,
                                std::uint64_t seed) {
  const reference::Result forward = reference::StoredForward(call.forward);
  const auto& shape = call.dbias->shape;
  const std::int64_t group = problem_.Group();
  struct Element {
    std::int64_t b, h, i, j;
    double exact = 0;
    float low = 0;
  };
  std::vector<Element> elements;
  for (std::int64_t n = 0; n < kSampledBias && call.dbias->Elements() > 0; ++n) {
    const auto draw = [&](int what, std::int64_t count) {
      return UniformInt(Key(seed, Stream::kSample, n, what, 1), 0, count - 1);
    };
    const std::int64_t kv_head = kv_heads[static_cast<std::size_t>(n) % kv_heads.size()];
    const std::int64_t h = shape[1] == 1 ? 0 : kv_head * group + draw(1, group);
    elements.push_back({draw(0, shape[0]), h, draw(2, shape[2]), draw(3, shape[3])});
  }
  for (std::int64_t b = 0; b < static_cast<std::int64_t>(sequences_.size()); ++b) {
    for (std::int64_t kv_head = 0; kv_head < problem_.heads_kv; ++kv_head) {
      const auto covers = [&](const Element& e) {
        return (shape[0] == 1 || e.b == b) && (shape[1] == 1 || e.h / group == kv_head);
      };
      if (std::none_of(elements.begin(), elements.end(), covers)) continue;
      const HeadBackward<double> exact(problem_, call, sequences_, forward, b, kv_head);
      const HeadBackward<float> low(problem_, call, sequences_, forward, b, kv_head);
      ParallelFor(static_cast<std::int64_t>(elements.size()), kParallelWork, [&](std::int64_t n) {
        Element& e = elements[static_cast<std::size_t>(n)];
        if (!covers(e)) return;
        // Of a broadcast extent everything, else the element's own place, if the sequence is that long.
        const auto range = [&](int d, std::int64_t at, std::int64_t begin, std::int64_t end) {
          return shape[d] == 1 ? std::pair(begin, end) : std::pair(std::max(at, begin), std::min(at + 1, end));
        };
        const auto [h_begin, h_end] = range(1, e.h, kv_head * group, (kv_head + 1) * group);
        const auto [i_begin, i_end] = range(2, e.i, 0, exact.queries());
        const auto [j_begin, j_end] = range(3, e.j, 0, exact.keys());
        for (std::int64_t h = h_begin; h < h_end; ++h) {
          for (std::int64_t i = i_begin; i < i_end; ++i) {
            for (std::int64_t j = j_begin; j < j_end; ++j) {
              e.exact += exact.BiasTerm(h, i, j);
              e.low += low.BiasTerm(h, i, j);
            }
          }
        }
      });
    }
  }
  for (const Element& e : elements) {
    const double low = e.low;
    parts_[kDbias].Add({e.b, e.h, e.i, e.i, e.j, 1, 0}, &e.exact, &low);
  }
}

Accuracy BackwardOracle::Compare(const BackwardArgs& call) const {
  const TensorView* views[kParts] = {&call.dq, &call.dk, &call.dv, call.dbias ? &*call.dbias : nullptr,
                                     call.dsink ? &*call.dsink : nullptr};
  Accuracy result;
  double worst_ratio = -1;
  for (int p = 0; p < kParts; ++p) {
    const Part& part = parts_[p];
    const TensorView* view = views[p];
    if (!view) continue;
    GradientAccuracy own{part.name, 0, GradientBound(problem_, part.lowprec_error, part.sums ? part.largest : 0)};
    const auto add = [&](const Run& run, std::int64_t c, double got, double expected, double error) {
      const bool special = std::isnan(error);
      if (!special) own.error = std::max(own.error, error);
      const double ratio = special ? std::numeric_limits<double>::infinity() : error / own.bound;
      result.nan_mismatch |= special;
      if (ratio <= worst_ratio) return;
      worst_ratio = ratio;
      char text[200];
      std::snprintf(text, sizeof(text), "%s b=%lld h=%lld i=%lld c=%lld: got %.9g expected %.9g", part.name,
                    static_cast<long long>(run.b), static_cast<long long>(run.h), static_cast<long long>(run.i),
                    static_cast<long long>(run.c + c), got, expected);
      result.where = text;
    };
    const auto each = [&](const Run& run, auto&& judge) {
      const std::int64_t first = OffsetOf(*view, run, p == kDbias);
      for (std::int64_t c = 0; c < run.count; ++c) judge(c, LoadFloat(view->data, view->dtype, first + c));
    };
    for (const Run& run : part.runs) {
      each(run, [&](std::int64_t c, double got) {
        const double expected = part.expected[run.first + static_cast<std::size_t>(c)];
        add(run, c, got, expected, ErrorOf(got, expected));
      });
    }
    for (const Run& run : part.zeros) {
      each(run, [&](std::int64_t c, double got) {
        if (got != 0) add(run, c, got, 0, std::numeric_limits<double>::quiet_NaN());
      });
    }
    result.gradients.push_back(own);
    if (result.gradients.size() == 1 || own.error / own.bound > result.out_error / result.out_bound) {
      result.out_error = own.error;
      result.out_bound = own.bound;
    }
  }
  return result;
}

}  // namespace regard::cases
