// The tensors of one case in memory that regard shares with the peers' processes: dense q, k, v in the case's type, and
// a place for an output in f32. Owns the memory, which goes with the last process that holds it.
#pragma once

#include <cstddef>
#include <string>

#include "regard/attention.h"
#include "regard/problem.h"

namespace regard::cli {

// Why peers cannot be given this problem (an option that none of them has, lengths that differ); empty: they can.
std::string WhyNoPeers(const Problem& p);

class PeerMemory {
 public:
  PeerMemory();   // throws std::bad_alloc
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  int descriptor() const { return descriptor_; }
  // Copies q, k, v of the call; a paged one's keys come from its dense twin, which holds the same numbers.
  // Returns the case as JSON, as bench/peers/case_data.py reads it. `p` must pass WhyNoPeers.
  std::string Fill(const Problem& p, const AttentionArgs& args);
  // NaN over the output, so that one that nobody wrote is seen.
  void PoisonOutput();
  // The largest absolute difference of the output from `out`, (B, Sq, Hq, Dv) of any type; infinity where either is
  // not a number.
  double DifferenceFrom(const TensorView& out) const;
  // The same, each difference divided by max(1, |element of `out`|).
  double RelativeDifferenceFrom(const TensorView& out) const;

 private:
  void Resize(std::size_t bytes);
  template <class Scale>
  double Difference(const TensorView& out, Scale scale) const;

  int descriptor_ = -1;
  std::byte* map_ = nullptr;
  std::size_t bytes_ = 0, out_at_ = 0;
};

}  // namespace regard::cli
