// The backward pass of one kv head of one sequence, gradient by gradient: each is its own sum over pairs, as
// docs/semantics.md writes it, so that any one row can be had alone.
//   P_ij  = exp(s_ij - lse_i), lse the one that is given; M_ij = 1 / (1 - p) where dropout keeps the pair, else 0
//   delta_i = sum_c dout_ic * out_ic,  dP_ij = M_ij * sum_c dout_ic v_jc,  dS_ij = P_ij * (dP_ij - delta_i + dlse_i)
//   dX_ij = dS_ij * (1 - tanh^2) with softcap, else dS_ij
//   dq_i = scale * sum_j dX_ij k_j,  dk_j = scale * sum_{h, i} dX_ij q_i,  dv_j = sum_{h, i} M_ij P_ij dout_i
//   dbias = dS summed over what the bias is broadcast over,  dsink_h = sum_i exp(sink_h - lse_i) * (dlse_i - delta_i)
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "src/reference/reference.h"
#include "src/reference/row.h"

namespace regard::reference {

// T = double: exact. T = float: each op accumulated in f32 and rounded once to the input type. Owns copies of the rows of
// one kv head and its group of query heads, as exact f32; views and `forward` must outlive the constructor only where the
// call's masks, biases and slopes are read: for as long as the object is used.
template <class T>
class HeadBackward {
 public:
  HeadBackward(const Problem& p, const BackwardArgs& args, const std::vector<Sequence>& sequences,
               const Result& forward, std::int64_t b, std::int64_t kv_head);

  std::int64_t queries() const { return sequence_.seq_q; }
  std::int64_t keys() const { return sequence_.seq_kv; }
  std::int64_t first_head() const { return first_head_; }  // of the group

  // dq of query i of head h, D values.
  void QueryRow(std::int64_t h, std::int64_t i, double* dq) const;
  // dk and dv of key j, D and Dv values, summed over the group.
  void KeyRow(std::int64_t j, double* dk, double* dv) const;
  // term(j, dS_ij) for the visible keys of query i of head h, in order: what dbias is summed from.
  void BiasTerms(std::int64_t h, std::int64_t i, const std::function<void(std::int64_t, T)>& term) const;
  // The share of query i in dsink[h].
  T SinkTerm(std::int64_t h, std::int64_t i) const;

 private:
  // What the loss sees of a pair: M_ij P_ij, dS_ij and dX_ij. A pair whose score is -inf, or whose row has lse -inf, has
  // no weight at all, and neither k_j nor v_j is read for it.
  struct Pair {
    bool counts = false;
    T weight = 0, score = 0, product = 0;
  };
  Pair PairOf(std::int64_t h, std::int64_t i, std::int64_t j, T query_key, T dout_value) const;
  // Visible keys of query i, with their pairs.
  std::vector<Pair> PairsOfQuery(std::int64_t h, std::int64_t i, std::vector<std::int64_t>& keys) const;
  bool Sees(std::int64_t h, std::int64_t i, std::int64_t j) const;
  // Row i of head h in arrays over the group.
  std::int64_t Row(std::int64_t h, std::int64_t i) const { return (h - first_head_) * sequence_.seq_q + i; }

  Call call_;
  Sequence sequence_;
  std::int64_t b_, first_head_;
  std::vector<float> q_, dout_;      // [group, Sq, D], [group, Sq, Dv]
  std::vector<float> k_, v_;         // [Skv, D], [Skv, Dv]
  std::vector<T> lse_, dlse_, delta_;  // [group, Sq]
};
extern template class HeadBackward<double>;
extern template class HeadBackward<float>;

}  // namespace regard::reference
