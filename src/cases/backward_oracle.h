// The accuracy rule for gradients: dq, dk, dv, dbias and dsink of one call, computed once in f64 from the very out and lse
// that the call holds, and held against what any number of kernels wrote. Owns its results; keeps no view.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "src/cases/cases.h"

namespace regard::cases {

class BackwardOracle {
 public:
  // All rows; or, with rows > 0, about so many query rows and as many keys, spread over all sequences and two kv heads,
  // a few elements of dbias, and dsink of those heads. Throws Error where `call` does not fit `p`.
  BackwardOracle(const Problem& p, const BackwardArgs& call, std::int64_t rows = 0, std::uint64_t seed = 1);
  // Holds the gradients of `call` (same shapes and lengths as the oracle's) to the rule. Rows that no sequence uses are
  // exactly 0, all of them.
  Accuracy Compare(const BackwardArgs& call) const;
  std::int64_t rows() const { return static_cast<std::int64_t>(parts_[0].runs.size()); }  // of dq that are compared

 private:
  // Neighbouring elements of a gradient, from channel c on (dbias: key c): those of row `row` of the tensor, which is
  // query or key i of sequence b. Their expected values begin at `first`.
  struct Run {
    std::int64_t b = 0, h = 0, i = 0, row = 0, c = 0, count = 0;
    std::size_t first = 0;
  };
  // One gradient.
  struct Part {
    const char* name = "";
    bool sums = false;                // over rows of scores: dbias, dsink
    std::vector<Run> runs, zeros;     // compared; of rows that no sequence uses
    std::vector<double> expected;
    double lowprec_error = 0, largest = 0;
    void Add(Run run, const double* exact, const double* low);
  };
  enum { kDq, kDk, kDv, kDbias, kDsink, kParts };

  void FindUnused(const BackwardArgs& call);
  void ComputeAll(const BackwardArgs& call);
  void ComputeSamples(const BackwardArgs& call, std::int64_t rows, std::uint64_t seed);
  void SampleBias(const BackwardArgs& call, const std::vector<std::int64_t>& kv_heads, std::uint64_t seed);
  // Row of query or key i of sequence b in its tensor.
  std::int64_t QueryRow(std::int64_t b, std::int64_t i) const;
  std::int64_t KeyRow(std::int64_t b, std::int64_t j) const;

  Problem problem_;
  std::vector<Sequence> sequences_;
  std::array<Part, kParts> parts_{};
};

}  // namespace regard::cases
