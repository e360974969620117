// The accuracy rule of docs/semantics.md against one set of inputs: computed once, held against any number of outputs.
// All tolerances of the project live in accuracy.cc. Owns its results; keeps no view.
#pragma once

#include <optional>
#include <vector>

#include "src/cases/backward_oracle.h"
#include "src/cases/cases.h"

namespace regard::cases {

class Oracle {
 public:
  // The reference on `args` (its append made: k and v hold the new keys), all query rows, or about `rows` sampled ones.
  // Throws Error where `args` does not fit `p`.
  Oracle(const Problem& p, const AttentionArgs& args, std::int64_t rows = 0, std::uint64_t seed = 1);
  // Holds out and lse of `args` (same shapes and lengths as the oracle's) to the rule.
  Accuracy Compare(const AttentionArgs& args) const;
  std::int64_t rows() const { return rows_; }  // query rows (of one head) that are compared

 private:
  // Rows [begin, end) of sequence b, head h; results from element `first_row` on.
  struct Span {
    std::int64_t b, h, begin, end, first_row;
  };
  void ChooseSpans(std::int64_t rows, std::uint64_t seed);
  void Compute(const AttentionArgs& args);

  Problem problem_;
  std::vector<Sequence> sequences_;
  std::vector<Span> spans_;
  std::int64_t rows_ = 0;
  std::vector<double> out_, lse_;  // (rows, Dv), (rows)
  double lowprec_error_ = 0, max_score_ = 0;
};

// The oracle of either direction, as the problem's phase says.
class CallOracle {
 public:
  CallOracle(const Problem& p, const BackwardArgs& call, std::int64_t rows = 0, std::uint64_t seed = 1);
  Accuracy Compare(const BackwardArgs& call) const {
    return backward_ ? backward_->Compare(call) : forward_->Compare(call.forward);
  }
  std::int64_t rows() const { return backward_ ? backward_->rows() : forward_->rows(); }

 private:
  std::optional<Oracle> forward_;
  std::optional<BackwardOracle> backward_;
};

// The error of one value: 0 where both are the same infinity or both NaN; NaN where only one of them is special.
double ErrorOf(double got, double expected);
// The bound of a gradient whose low precision twin is wrong by `lowprec_error`. `largest`: of the expected values, where
// each is a sum over many rows of scores (dbias, dsink); else 0.
double GradientBound(const Problem& p, double lowprec_error, double largest);

// Rows to sample so that the oracle's work stays bounded: 0 (all) for a small case.
std::int64_t SampledRows(const Problem& p);

}  // namespace regard::cases
