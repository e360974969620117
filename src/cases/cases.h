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
  const Problem& problem() const;         // as given; bounds every sequence of the case
  AttentionArgs& args();
  const AttentionArgs& args() const;
  // The whole call; beyond `forward`, which is args(), set only where the phase is backward.
  BackwardArgs& call();
  const BackwardArgs& call() const;
  // An independent copy with the same bytes (for appends, which write in place).
  Case Clone() const;

  struct Impl;
  std::unique_ptr<Impl> impl;
};

// The generated inputs of a problem, which passes ResolveArgs. Throws Error for an illegal problem and for one that would
// need more than `max_bytes`.
//
// Values: k, v (and the new ones of an append) ~ N(0, 1), q and qv ~ N(0, qscale^2), bias and sink ~ N(0, 1), descales in
// [0.5, 1.5]. An element depends only on (seed, tensor, sequence, position, head, channel): dense, packed, paged and
// appended forms of one problem hold the same numbers, in any layout and page placement.
// Lengths: lens and qlens, else skv and sq. With append=N a sequence holds N new keys inside its length; a shorter length
// is raised to N (packed k_new: N is cut to the length). leftpad: drawn from 0 to a quarter of the older keys.
// Pages: ordered is 0, 1, 2, ...; random is drawn from a pool of twice the pages in use, and of at least 8 times the
// last-level cache where k and v take more than an eighth of that (half of max_bytes at most).
// Dropout: the seed is random, the offset is small, or 64 random bits with even seeds.
// bias and mask: (1, Hq, Sq, Skv) up to 64 MiB, then broadcast over heads, then over queries.
// score_mod (built in): s + (((j - i + h) mod 4) - 1) / 8. mask_mod (built in): visible where (i + j + b) mod 4 != 3.
// Backward: out and lse are those of the forward pass (the reference's where the case is small, else those of the kernel
// that Select chooses), dout and dlse ~ N(0, 1); the rows of all four that no sequence uses hold NaN. dq, dk, dv, dbias
// and dsink are poisoned.
// Odd seeds, the default among them, draw the common forms. Even seeds draw the rarer ones: gaps between packed sequences
// and rows after the last, cache_seqlens in place of seqused_kv, an extra cache row and cache_batch_idx in reverse order,
// ALiBi slopes and (where small) bias and mask for each sequence, u8 masks, sinks and rotary tables in q's type, rotary
// over half of the head from rotary_seqlens, dout in f32, dbias in the type of bias (else f32).
Case MakeCase(const Problem& p, std::size_t max_bytes = std::size_t{8} << 30);

// Fills out and lse with NaN again. Both must be dense blocks in some order of their dims, as MakeCase makes them.
void PoisonOutputs(AttentionArgs& args);
// Those of either direction: out and lse, or the gradients.
void PoisonOutputs(const Problem& p, BackwardArgs& call);
// Launch of call.forward, or LaunchBackward, as the plan's phase says.
void LaunchCall(const Plan& plan, const BackwardArgs& call, Workspace workspace);

// One gradient held to the accuracy rule.
struct GradientAccuracy {
  const char* name = "";   // "dq"
  double error = 0, bound = 0;
};

// Result of holding one output to the accuracy rule of docs/semantics.md.
struct Accuracy {
  double out_error = 0;    // max |out - ref64|; backward: of the gradient that is nearest to its bound
  double out_bound = 0;    // factor * max |lowprec - ref64| + 1e-5; backward: of the same gradient
  double lse_error = 0;
  double lse_bound = 0;
  bool nan_mismatch = false;  // NaN, inf or -inf where the reference has none, or the other way round
  std::vector<GradientAccuracy> gradients;  // backward only
  std::string where;          // of the worst element: "out b=0 h=3 i=17 c=5: got ... expected ..."
  bool ok() const { return !nan_mismatch && out_error <= out_bound && lse_error <= lse_bound; }
  double ratio() const;       // worst error / bound
};

// Compares args.out (and lse) with the oracle. `rows` > 0: that many sampled query rows (big cases), else all. Rows that
// no sequence owns are always checked (out 0, lse -inf). An append must have been made: k and v hold the new keys.
Accuracy CheckAccuracy(const Problem& p, const AttentionArgs& args, std::int64_t rows = 0, std::uint64_t seed = 1);

// The same for either direction; backward: about `rows` query rows and as many keys of some heads.
Accuracy CheckAccuracy(const Problem& p, const BackwardArgs& call, std::int64_t rows = 0, std::uint64_t seed = 1);

// 64-bit checksum of a view's elements in row-major order, whatever their memory layout.
std::uint64_t Checksum(const TensorView& view);

}  // namespace regard::cases
