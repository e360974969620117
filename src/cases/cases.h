// From a Problem to real tensors: seeded random inputs for run, check, bench and tests, and the accuracy rule.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "regard/attention.h"
#include "src/problem/sequence.h"

namespace regard::cases {

// Owns every tensor of one generated call. Movable; views stay valid. Buffers are 64-byte aligned, big ones on huge
// pages. Padding, unused page slots and unreferenced pages hold NaN (fp8: NaN bytes), out and lse are poisoned.
class Case {
 public:
  Case();
  ~Case();
  Case(Case&&) noexcept;
  Case& operator=(Case&&) noexcept;
  const Problem& problem() const;         // lengths settled: seq_q/seq_kv are those of the longest sequence
  AttentionArgs& args();
  const AttentionArgs& args() const;
  // An independent copy with the same bytes (for appends, which write in place).
  Case Clone() const;

  struct Impl;
  std::unique_ptr<Impl> impl;
};

// The generated inputs of a problem. Deterministic in (problem, problem.seed). Throws Error for an illegal problem and
// for one that would need more than `max_bytes`.
Case MakeCase(const Problem& p, std::size_t max_bytes = std::size_t{8} << 30);

// Result of holding one output to the accuracy rule of docs/semantics.md.
struct Accuracy {
  double out_error = 0;    // max |out - ref64|
  double out_bound = 0;    // factor * max |lowprec - ref64| + 1e-5
  double lse_error = 0;
  double lse_bound = 0;
  bool nan_mismatch = false;  // NaN, inf or -inf where the reference has none, or the other way round
  std::string where;          // of the worst element: "b=0 h=3 i=17 c=5: got ... expected ..."
  bool ok() const { return !nan_mismatch && out_error <= out_bound && lse_error <= lse_bound; }
  double ratio() const;       // worst error / bound
};

// Compares args.out (and lse) with the oracle. `rows` > 0: that many sampled query rows (big cases), else all.
Accuracy CheckAccuracy(const Problem& p, const AttentionArgs& args, std::int64_t rows = 0, std::uint64_t seed = 1);

// Order-independent-of-nothing checksum of the bytes of a view, elements in row-major order (xxhash-like, 64 bit).
std::uint64_t Checksum(const TensorView& view);

}  // namespace regard::cases
