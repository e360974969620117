// The accuracy rule of docs/semantics.md, and every tolerance of the project:
//   max|out - ref64| <= factor * max|lowprec - ref64| + 1e-5,  factor 2; 3 with softcap, and for appends with rotary;
//   gradients: factor 3, + 1e-5 for f32 inputs and + 2e-4 for narrower ones (times the largest |dbias| or |dsink| for
//   those two, which are sums over many rows);  max|lse - ref64| <= 1e-5 * max(1, max|s|) for f32 inputs, 2e-4 * max(1, max|s|) for narrower ones.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "src/cases/oracle.h"
#include "src/cases/parallel.h"
#include "src/cases/random.h"
#include "src/problem/extent.h"
#include "src/reference/reference.h"

namespace regard::cases {
namespace {

constexpr double kFactor = 2, kLooseFactor = 3;
constexpr double kOutAbsolute = 1e-5, kGradientAbsoluteNarrow = 2e-4;
constexpr double kLseF32 = 1e-5, kLseNarrow = 2e-4;

constexpr std::int64_t kRowsPerTask = 32;
constexpr double kFullCheckProducts = 1e8;  // multiply-adds of one exact pass; beyond it rows are sampled
constexpr std::int64_t kFewestSamples = 64;

double Factor(const Problem& p) {
  const bool rotated_append = p.append && p.options.rotary != Rotary::kNone;
  return p.options.softcap > 0 || rotated_append ? kLooseFactor : kFactor;
}

// x as a tensor of type t stores it.
double Stored(double x, DType t) {
  float element = 0;  // wide enough for any type
  StoreFloat(&element, t, 0, static_cast<float>(x));
  return LoadFloat(&element, t, 0);
}

// Element offset of row i of sequence b, head h, in q or out; and in lse.
std::int64_t OutOffset(const TensorView& out, const Sequence& s, std::int64_t b, std::int64_t i, std::int64_t h) {
  if (out.rank == 3) return (s.q_row + i) * out.stride[0] + h * out.stride[1];
  return b * out.stride[0] + i * out.stride[1] + h * out.stride[2];
}
std::int64_t LseOffset(const TensorView& lse, const Sequence& s, std::int64_t b, std::int64_t i, std::int64_t h) {
  if (lse.rank == 2) return h * lse.stride[0] + (s.q_row + i) * lse.stride[1];
  return b * lse.stride[0] + h * lse.stride[1] + i * lse.stride[2];
}

// Gathers the worst of many values into an Accuracy.
class Judge {
 public:
  explicit Judge(Accuracy& result) : result_(result) {}

  void Out(double got, double expected, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t c) {
    Add(ErrorOf(got, expected), result_.out_error, result_.out_bound, {"out", b, h, i, c, got, expected});
  }
  void Lse(double got, double expected, std::int64_t b, std::int64_t h, std::int64_t i) {
    Add(ErrorOf(got, expected), result_.lse_error, result_.lse_bound, {"lse", b, h, i, -1, got, expected});
  }
  // A row that no sequence owns: written as exactly out 0, lse -inf.
  void UnownedOut(double got, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t c) {
    const double error = got == 0 ? 0 : std::numeric_limits<double>::quiet_NaN();
    Add(error, result_.out_error, result_.out_bound, {"out", b, h, i, c, got, 0});
  }
  void Describe() const {
    if (!worst_.tensor) return;
    char text[200];
    char channel[32] = "";
    if (worst_.c >= 0) std::snprintf(channel, sizeof(channel), " c=%lld", static_cast<long long>(worst_.c));
    std::snprintf(text, sizeof(text), "%s b=%lld h=%lld i=%lld%s: got %.9g expected %.9g", worst_.tensor,
                  static_cast<long long>(worst_.b), static_cast<long long>(worst_.h), static_cast<long long>(worst_.i),
                  channel, worst_.got, worst_.expected);
    result_.where = text;
  }

 private:
  struct Place {
    const char* tensor = nullptr;
    std::int64_t b = 0, h = 0, i = 0, c = 0;
    double got = 0, expected = 0;
  };
  void Add(double error, double& worst_error, double bound, const Place& place) {
    if (std::isnan(error)) {
      if (!result_.nan_mismatch) worst_ = place;
      result_.nan_mismatch = true;
      return;
    }
    worst_error = std::max(worst_error, error);
    if (result_.nan_mismatch || error / bound <= worst_ratio_) return;
    worst_ratio_ = error / bound;
    worst_ = place;
  }

  Accuracy& result_;
  Place worst_;
  double worst_ratio_ = 0;
};

}  // namespace

double ErrorOf(double got, double expected) {
  if (std::isnan(expected)) return std::isnan(got) ? 0 : std::numeric_limits<double>::quiet_NaN();
  if (std::isinf(expected)) return got == expected ? 0 : std::numeric_limits<double>::quiet_NaN();
  return std::isfinite(got) ? std::fabs(got - expected) : std::numeric_limits<double>::quiet_NaN();
}

double GradientBound(const Problem& p, double lowprec_error, double largest) {
  const double absolute = p.dtype == DType::kF32 ? kOutAbsolute : kGradientAbsoluteNarrow;
  return kLooseFactor * lowprec_error + absolute * std::max(1.0, largest);
}

double Accuracy::ratio() const {
  if (nan_mismatch) return std::numeric_limits<double>::infinity();
  const double out = out_bound > 0 ? out_error / out_bound : 0.0;
  return std::max(out, lse_bound > 0 ? lse_error / lse_bound : 0.0);
}

std::int64_t SampledRows(const Problem& p) {
  const bool backward = p.phase == Phase::kBackward;  // both products of a pair for dq, and again for dk and dv
  const double width = static_cast<double>(backward ? 4 * p.head_dim + 3 * p.head_dim_v
                                                    : p.head_dim + p.head_dim_v + (p.qv ? p.head_dim_v : 0));
  const double products = VisiblePairs(p) * static_cast<double>(p.heads_q) * width;
  if (products <= kFullCheckProducts) return 0;
  const double row = std::max(1.0, static_cast<double>(p.seq_kv) * width);
  return std::max(kFewestSamples, static_cast<std::int64_t>(kFullCheckProducts / row));
}

Oracle::Oracle(const Problem& p, const AttentionArgs& args, std::int64_t rows, std::uint64_t seed) : problem_(p) {
  sequences_.resize(static_cast<std::size_t>(std::max<std::int64_t>(BatchOf(args), 0)));
  std::vector<std::byte> scratch(ResolveScratchBytes(p));
  ResolveArgs(p, args, true, sequences_, scratch);
  ChooseSpans(rows, seed);
  Compute(args);
}

void Oracle::ChooseSpans(std::int64_t rows, std::uint64_t seed) {
  std::vector<std::int64_t> begins = {0};  // of each sequence's used rows in one head
  for (const Sequence& s : sequences_) begins.push_back(begins.back() + s.seq_q);
  const std::int64_t total = begins.back() * problem_.heads_q;
  const auto add = [&](std::int64_t b, std::int64_t h, std::int64_t begin, std::int64_t end) {
    spans_.push_back({b, h, begin, end, rows_});
    rows_ += end - begin;
  };
  if (rows <= 0 || rows >= total) {
    for (std::size_t b = 0; b < sequences_.size(); ++b) {
      for (std::int64_t h = 0; h < problem_.heads_q; ++h) {
        for (std::int64_t i = 0; i < sequences_[b].seq_q; i += kRowsPerTask) {
          add(static_cast<std::int64_t>(b), h, i, std::min(i + kRowsPerTask, sequences_[b].seq_q));
        }
      }
    }
    return;
  }
  for (std::int64_t n = 0; n < rows; ++n) {
    // The first two samples are the first row and the last; the others are drawn.
    const std::uint64_t key = Key(seed, Stream::kSample, n);
    const std::int64_t at = n == 0 ? 0 : n == 1 ? total - 1 : UniformInt(key, 0, total - 1);
    const std::int64_t row = at / problem_.heads_q, h = at % problem_.heads_q;
    const std::int64_t b = std::upper_bound(begins.begin(), begins.end(), row) - begins.begin() - 1;
    const std::int64_t i = row - begins[static_cast<std::size_t>(b)];
    add(b, h, i, i + 1);
  }
}

void Oracle::Compute(const AttentionArgs& args) {
  const std::int64_t dim = problem_.head_dim_v;
  out_.resize(static_cast<std::size_t>(rows_ * dim));
  lse_.resize(static_cast<std::size_t>(rows_));
  std::vector<double> errors(spans_.size(), 0), scores(spans_.size(), 0);
  const double products = static_cast<double>(rows_) * static_cast<double>(problem_.seq_kv) *
                          static_cast<double>(problem_.head_dim + problem_.head_dim_v);
  ParallelFor(static_cast<std::int64_t>(spans_.size()), products, [&](std::int64_t task) {
    const Span& span = spans_[static_cast<std::size_t>(task)];
    const auto n = static_cast<std::size_t>(span.end - span.begin);
    double* out = out_.data() + span.first_row * dim;
    double* lse = lse_.data() + span.first_row;
    std::vector<double> low_out(n * static_cast<std::size_t>(dim)), low_lse(n);
    double max_score = 0, low_score = 0;
    reference::ForwardRows(problem_, args, sequences_, span.b, span.h, span.begin, span.end,
                           reference::Rounding::kExact, out, lse, &max_score);
    reference::ForwardRows(problem_, args, sequences_, span.b, span.h, span.begin, span.end,
                           reference::Rounding::kLowPrecision, low_out.data(), low_lse.data(), &low_score);
    double error = 0;
    for (std::size_t e = 0; e < low_out.size(); ++e) {
      const double difference = std::fabs(Stored(low_out[e], problem_.OutType()) - out[e]);
      if (std::isfinite(difference)) error = std::max(error, difference);
    }
    errors[static_cast<std::size_t>(task)] = error;
    scores[static_cast<std::size_t>(task)] = std::isfinite(max_score) ? max_score : 0;
  });
  for (const double error : errors) lowprec_error_ = std::max(lowprec_error_, error);
  for (const double score : scores) max_score_ = std::max(max_score_, score);
}

Accuracy Oracle::Compare(const AttentionArgs& args) const {
  Accuracy result;
  result.out_bound = Factor(problem_) * lowprec_error_ + kOutAbsolute;
  result.lse_bound = (problem_.dtype == DType::kF32 ? kLseF32 : kLseNarrow) * std::max(1.0, max_score_);
  Judge judge(result);
  const std::int64_t dim = problem_.head_dim_v;
  const TensorView& out = args.out;
  const auto out_at = [&](std::int64_t offset) { return LoadFloat(out.data, out.dtype, offset); };
  const auto lse_at = [&](std::int64_t offset) { return LoadFloat(args.lse->data, DType::kF32, offset); };

  for (const Span& span : spans_) {
    const Sequence& s = sequences_[static_cast<std::size_t>(span.b)];
    for (std::int64_t i = span.begin; i < span.end; ++i) {
      const std::int64_t row = span.first_row + i - span.begin;
      const std::int64_t offset = OutOffset(out, s, span.b, i, span.h);
      for (std::int64_t c = 0; c < dim; ++c) {
        judge.Out(out_at(offset + c), out_[static_cast<std::size_t>(row * dim + c)], span.b, span.h, i, c);
      }
      if (!args.lse) continue;
      judge.Lse(lse_at(LseOffset(*args.lse, s, span.b, i, span.h)), lse_[static_cast<std::size_t>(row)], span.b, span.h, i);
    }
  }

  // Rows [begin, end) of sequence b that no query owns: out 0, lse -inf.
  const auto check_empty = [&](const Sequence& s, std::int64_t b, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t h = 0; h < problem_.heads_q; ++h) {
        const std::int64_t offset = OutOffset(out, s, b, i, h);
        for (std::int64_t c = 0; c < dim; ++c) judge.UnownedOut(out_at(offset + c), b, h, i, c);
        if (!args.lse) continue;
        judge.Lse(lse_at(LseOffset(*args.lse, s, b, i, h)), -std::numeric_limits<double>::infinity(), b, h, i);
      }
    }
  };
  for (std::size_t b = 0; b < sequences_.size(); ++b) {
    check_empty(sequences_[b], static_cast<std::int64_t>(b), sequences_[b].seq_q, sequences_[b].rows);
  }
  if (problem_.varlen) {
    const std::int64_t owned = sequences_.empty() ? 0 : sequences_.back().q_row + sequences_.back().rows;
    Sequence tail;
    check_empty(tail, static_cast<std::int64_t>(sequences_.size()), owned, out.shape[0]);
  }
  judge.Describe();
  return result;
}

CallOracle::CallOracle(const Problem& p, const BackwardArgs& call, std::int64_t rows, std::uint64_t seed) {
  if (p.phase == Phase::kBackward) {
    backward_.emplace(p, call, rows, seed);
  } else {
    forward_.emplace(p, call.forward, rows, seed);
  }
}

Accuracy CheckAccuracy(const Problem& p, const AttentionArgs& args, std::int64_t rows, std::uint64_t seed) {
  return Oracle(p, args, rows, seed).Compare(args);
}

Accuracy CheckAccuracy(const Problem& p, const BackwardArgs& call, std::int64_t rows, std::uint64_t seed) {
  return CallOracle(p, call, rows, seed).Compare(call);
}

}  // namespace regard::cases
