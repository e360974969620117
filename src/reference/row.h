// One query row of the oracle: scores, softmax and output of query i of sequence b and head h.
//   out_i = sum_j exp(s_ij - lse_i) v_j,   lse_i = log(sum_j exp(s_ij) [+ exp(sink)])
#pragma once

#include <cstdint>
#include <vector>

#include "src/problem/sequence.h"

namespace regard::reference {

// The call as the oracle sees it; owns nothing.
struct Call {
  const Problem& p;
  const AttentionArgs& args;
  const std::vector<Sequence>& sequences;
  std::int64_t D() const { return p.head_dim; }
  std::int64_t Dv() const { return p.head_dim_v; }
};

// Keys [begin, end) of one kv head of one sequence, contiguous and as exact f32, before any descale. Owns its memory.
struct KvHead {
  std::int64_t begin = 0, end = 0;
  std::vector<float> k;  // [end - begin, D]
  std::vector<float> v;  // [end - begin, Dv]
};

// The keys that any of the query rows [i_begin, i_end) of sequence b may see.
KvHead LoadKvHead(const Call& call, std::int64_t b, std::int64_t kv_head, std::int64_t i_begin, std::int64_t i_end);

// Whether dropout keeps the pair; j' and p' of docs/semantics.md count from the first real key.
bool Keeps(const Call& call, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j);

struct RowStats {
  double lse = 0;
  double max_abs_score = 0;  // over the visible keys with a finite score
};

// T = double: exact. T = float: each op accumulated in f32 and rounded once to the input type. `kv` holds at least the
// keys that row i sees; out: Dv values.
template <class T>
RowStats AttendRow(const Call& call, const KvHead& kv, std::int64_t b, std::int64_t h, std::int64_t i, double* out);
extern template RowStats AttendRow<double>(const Call&, const KvHead&, std::int64_t, std::int64_t, std::int64_t,
                                           double*);
extern template RowStats AttendRow<float>(const Call&, const KvHead&, std::int64_t, std::int64_t, std::int64_t,
                                          double*);

}  // namespace regard::reference
