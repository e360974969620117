// Visible key ranges. Causal, window, chunk, left padding and length leave one interval of keys per query row; masks
// and mask_mod punch holes into it. Both ends never decrease with i, so a tile's range is [Begin(first), End(last)).
#pragma once

#include <cstdint>

#include "regard/problem.h"
#include "src/problem/sequence.h"

namespace regard {

struct KeyRange {
  std::int64_t begin = 0, end = 0;  // [begin, end) in j; empty: begin >= end
  bool empty() const noexcept { return begin >= end; }
  bool operator==(const KeyRange&) const = default;
};

// Keys that query i of sequence s may see (step 5 of docs/semantics.md without masks).
KeyRange VisibleKeys(const AttentionOptions& o, const Sequence& s, std::int64_t i) noexcept;

// Visible (i, j) pairs of one sequence and one head, masks ignored. A closed form (one a chunk): no loop over rows.
double VisiblePairs(const AttentionOptions& o, const Sequence& s) noexcept;
// The same for a problem, still of one head: the sum over its batch, from its length lists or else all at the longest.
// q_offset is the default one and leftpad 0. Throws Error for lists that Validate refuses.
double VisiblePairs(const Problem& p);

}  // namespace regard
