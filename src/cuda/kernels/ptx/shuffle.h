// Values among the lanes of a warp; every lane takes part. Source: PTX ISA, shfl.sync and vote.sync.
#pragma once

#include "base/types.h"

namespace regard::cuda {

// The value of lane ^ mask. T: float, i32 or u32.
template <class T>
REGARD_DEVICE T ShuffleXor(T x, int mask) {
  return __shfl_xor_sync(0xffffffffu, x, mask);
}
// The value of lane `source`.
template <class T>
REGARD_DEVICE T ShuffleFrom(T x, int source) {
  return __shfl_sync(0xffffffffu, x, source);
}
// Bit l: whether `x` holds in lane l.
REGARD_DEVICE u32 Ballot(bool x) { return __ballot_sync(0xffffffffu, x); }

}  // namespace regard::cuda
