// A call made of .npy files, for `regard run --q q.npy --k k.npy --v v.npy ...`.
#pragma once

#include <list>
#include <string>

#include "cli/npy.h"
#include "regard/attention.h"

namespace regard::cli {

// Paths as given on the command line; empty: not given.
struct TensorFiles {
  std::string q, k, v;
  std::string lens, qlens;          // used keys and queries of each sequence
  std::string cu_q, cu_kv;          // packed tensors
  std::string block_table;          // paged keys
  std::string bias, mask, sink, alibi_slopes;
  std::string options;              // words of a case that are options: "causal window=3,0"
  bool any() const { return !q.empty() || !k.empty() || !v.empty(); }
};

// Owns every tensor of the call, out and lse among them.
struct TensorCall {
  std::list<NpyArray> files;
  cases::Buffer out_memory, lse_memory;
  AttentionArgs args;
  Problem problem;
};

// Reads the files, checks that they make a legal call, allocates out (and lse where `want_lse` or the options ask for it).
// --lens is the length of each sequence's keys and, for self-attention (as many query rows as key rows, not paged), of
// its queries too, unless --qlens says otherwise. Throws Error for anything that is wrong.
TensorCall LoadTensorCall(const TensorFiles& files, bool want_lse);

}  // namespace regard::cli
