// The tensors of one case in memory that regard shares with the peers' processes: dense q, k, v in the case's type, for a
// backward pass dO too, and places for the results in f32: the output, or dq, dk and dv. Owns the memory, which goes with
// the last process that holds it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "regard/attention.h"
#include "regard/problem.h"

namespace regard::cli {

// Why peers cannot be given this problem (an option that none of them has, lengths that differ); empty: they can.
std::string WhyNoPeers(const Problem& p);

// What a call of this problem writes and peers are compared by: out, or dq, dk, dv.
std::vector<TensorView> ResultsOf(const Problem& p, const BackwardArgs& call);

class PeerMemory {
 public:
  PeerMemory();   // throws std::bad_alloc
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  int descriptor() const { return descriptor_; }
  // Copies q, k, v (and dO) of the call; a paged one's keys come from its dense twin, which holds the same numbers.
  // Returns the case as JSON, as bench/peers/case_data.py reads it. `p` must pass WhyNoPeers.
  std::string Fill(const Problem& p, const BackwardArgs& call);
  // NaN over the results, so that one that nobody wrote is seen.
  void PoisonResults();
  // The largest absolute difference from `results`, each (B, S, H, D) of any type, in the order of ResultsOf; infinity
  // where either is not a number.
  double DifferenceFrom(const std::vector<TensorView>& results) const;
  // The same, each difference divided by max(1, |element of `results`|).
  double RelativeDifferenceFrom(const std::vector<TensorView>& results) const;

 private:
  void Resize(std::size_t bytes);
  template <class Scale>
  double Difference(const std::vector<TensorView>& results, Scale scale) const;

  int descriptor_ = -1;
  std::byte* map_ = nullptr;
  std::size_t bytes_ = 0;
  std::vector<std::size_t> results_at_;  // ascending; the last fill the end of the memory
};

}  // namespace regard::cli
