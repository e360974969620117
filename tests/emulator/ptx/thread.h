// Emulated twin of src/cuda/kernels/ptx/thread.h.
#pragma once

#include "base/types.h"
#include "tests/emulator/device.h"

namespace regard::cuda {

inline int ThreadIndex() {
  return emulator::position.thread;
}
inline int Lane() {
  return emulator::position.thread & 31;
}
inline int Warp() {
  return emulator::position.thread >> 5;
}
inline int BlockX() {
  return emulator::position.block[0];
}
inline int BlockY() {
  return emulator::position.block[1];
}
inline int BlockZ() {
  return emulator::position.block[2];
}
inline int GridX() {
  return emulator::position.grid[0];
}

inline void BlockBarrier(emulator::Site site = emulator::Here()) {
  emulator::MeetBlock(false, false, site);
}
inline bool BlockAny(bool x, emulator::Site site = emulator::Here()) {
  return emulator::MeetBlock(true, x, site);
}
inline void WarpBarrier(emulator::Site site = emulator::Here()) {
  emulator::Meet(emulator::Collective::kWarpBarrier, site, 0, nullptr);
}

}  // namespace regard::cuda
