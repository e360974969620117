// The fp64 oracle: docs/semantics.md as plain loops. Slow, complete, and the judge of every other kernel.
#pragma once

#include <cstdint>
#include <vector>

#include "src/problem/sequence.h"

namespace regard::reference {

struct Result {
  std::vector<double> out;  // row-major (B, Sq, Hq, Dv) or (Tq, Hq, Dv)
  std::vector<double> lse;  // row-major (B, Hq, Sq) or (Hq, Tq)
};

// How the arithmetic rounds. kExact: f64 throughout. kLowPrecision: the plain formula of the accuracy rule, each op
// (scores, softmax, PV) accumulated in f32 and rounded once to the input type: the yardstick that errors are held against.
enum class Rounding { kExact, kLowPrecision };

// Attention of resolved, checked arguments. The append, if any, must have been written (AppendKv).
Result Forward(const Problem& p, const AttentionArgs& args, const std::vector<Sequence>& sequences,
               Rounding rounding = Rounding::kExact);

// Query rows [i_begin, i_end) of sequence b and head h alone (sampled checks of big cases): out[(i - i_begin) * Dv + c].
void ForwardRows(const Problem& p, const AttentionArgs& args, const std::vector<Sequence>& sequences, std::int64_t b,
                 std::int64_t h, std::int64_t i_begin, std::int64_t i_end, Rounding rounding, double* out, double* lse,
                 double* max_abs_score);

// Row-major, of the shapes of q, k, v, bias and sink; dbias and dsink are empty where the call does not want them. Rows
// that no sequence owns hold 0.
struct Gradients {
  std::vector<double> dq, dk, dv, dbias, dsink;
};

// out and lse of a call as their views hold them.
Result StoredForward(const AttentionArgs& args);

// The gradients of resolved, checked arguments (src/reference/backward.h has the formulas), given out and lse of the
// forward pass: those that are stored, or exact ones.
Gradients Backward(const Problem& p, const BackwardArgs& args, const std::vector<Sequence>& sequences,
                   const Result& forward, Rounding rounding = Rounding::kExact);

// Writes k_new, v_new (rotated, converted) into the cache in place, as the semantics say.
void AppendKv(const Problem& p, const AttentionArgs& args, const std::vector<Sequence>& sequences);

// Merge of partial states in fp64: o = (n, dv), l = (n).
void Merge(const double* o_a, const double* l_a, const double* o_b, const double* l_b, std::int64_t n, std::int64_t dv,
           double* o, double* l);

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
struct Philox {
  std::uint32_t v[4];
};
Philox Philox4x32(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2, std::uint32_t c3, std::uint64_t key);

}  // namespace regard::reference
