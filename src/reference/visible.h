// Which keys a query sees: the predicates of docs/semantics.md, step 5, one line each. Written apart from
// src/problem/extent.h on purpose: the oracle must not share a mistake with the kernels it judges.
#pragma once

#include <cstdint>

#include "regard/attention.h"
#include "src/problem/sequence.h"

namespace regard::reference {

// Rounds towards minus infinity; c > 0.
inline std::int64_t FloorDiv(std::int64_t a, std::int64_t c) {
  return a / c - (a % c < 0 ? 1 : 0);
}

// Everything of the rule but the mask tensor and mask_mod. Differences of positions, never sums with a window size, so
// that a window of any size is safe from overflow.
inline bool InRange(const AttentionOptions& o, const Sequence& s, std::int64_t i, std::int64_t j) {
  const std::int64_t p = i + s.q_offset;
  if (j >= s.seq_kv || j < s.leftpad) return false;
  if (o.causal && j > p) return false;
  if (o.window_left && p - j > *o.window_left) return false;
  if (o.window_right && j - p > *o.window_right) return false;
  // j lies in the chunk [o + floor((p-o)/C)*C, + C) of p exactly if both have the same quotient.
  if (o.chunk && FloorDiv(p - s.leftpad, *o.chunk) != FloorDiv(j - s.leftpad, *o.chunk)) return false;
  return true;
}

// Address of element (b, h, i, j) of a tensor whose extents of 1 are broadcast.
inline const void* Broadcast(const TensorView& t, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  const auto at = [&t](int dim, std::int64_t index) { return t.shape[dim] == 1 ? 0 : index; };
  return t.At(at(0, b), at(1, h), at(2, i), at(3, j));
}

// The whole rule.
inline bool Visible(const AttentionOptions& o, const AttentionArgs& args, const Sequence& s, std::int64_t b,
                    std::int64_t h, std::int64_t i, std::int64_t j) {
  if (!InRange(o, s, i, j)) return false;
  if (args.mask && *static_cast<const std::uint8_t*>(Broadcast(*args.mask, b, h, i, j)) == 0) return false;
  if (args.mask_mod.fn && !args.mask_mod.fn(args.mask_mod.ctx, b, h, i, j)) return false;
  return true;
}

}  // namespace regard::reference
