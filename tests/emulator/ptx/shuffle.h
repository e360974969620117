// Emulated twin of src/cuda/kernels/ptx/shuffle.h.
#pragma once

#include "base/types.h"
#include "ptx/thread.h"

namespace regard::cuda {

template <class T>
inline T ShuffleFrom(T x, int source, emulator::Site site = emulator::Here()) {
  static_assert(sizeof(T) == 4);
  emulator::ShuffleLane lane{__builtin_bit_cast(u32, x), 0, source};
  emulator::Meet(emulator::Collective::kShuffle, site, 0, &lane);
  return __builtin_bit_cast(T, lane.result);
}
template <class T>
inline T ShuffleXor(T x, int mask, emulator::Site site = emulator::Here()) {
  static_assert(sizeof(T) == 4);
  emulator::ShuffleLane lane{__builtin_bit_cast(u32, x), 0, Lane() ^ mask};
  emulator::Meet(emulator::Collective::kShuffle, site, static_cast<u32>(mask), &lane);
  return __builtin_bit_cast(T, lane.result);
}
inline u32 Ballot(bool x, emulator::Site site = emulator::Here()) {
  emulator::BallotLane lane{x, 0};
  emulator::Meet(emulator::Collective::kBallot, site, 0, &lane);
  return lane.result;
}

}  // namespace regard::cuda
