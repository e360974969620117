// Emulated twin of src/cuda/kernels/ptx/async.h.
#pragma once

#include "base/types.h"
#include "ptx/memory.h"

namespace regard::cuda {

template <class T>
inline void CopyAsync16(Shared<T> to, int to_index, Global<const T> from, i64 from_index, bool valid,
                        emulator::Site site = emulator::Here()) {
  if (emulator::position.arch >= 80) {
    emulator::CopyBegin(to.At(to_index), valid ? from.data + from_index : nullptr, site);
  } else {
    to.Store16(to_index, valid ? from.Load16(from_index, site) : Vec16{{0, 0, 0, 0}}, site);
  }
}
inline void CopyAsyncCommit() {
  if (emulator::position.arch >= 80) emulator::CopyCommit();
}
template <int pending>
inline void CopyAsyncWait() {
  if (emulator::position.arch >= 80) emulator::CopyWait(pending);
}

}  // namespace regard::cuda
