// Emulated twin of src/cuda/kernels/ptx/ldmatrix.h.
#pragma once

#include "base/types.h"
#include "ptx/memory.h"

namespace regard::cuda {

template <class T>
inline void LoadMatrix4(u32 (&r)[4], Shared<T> row, int i, emulator::Site site = emulator::Here()) {
  static_assert(sizeof(T) == 2);
  emulator::MatrixLane lane{row.Address(i), r};
  emulator::Meet(emulator::Collective::kMatrix4, site, 0, &lane);
}
template <class T>
inline void LoadMatrix4Trans(u32 (&r)[4], Shared<T> row, int i, emulator::Site site = emulator::Here()) {
  static_assert(sizeof(T) == 2);
  emulator::MatrixLane lane{row.Address(i), r};
  emulator::Meet(emulator::Collective::kMatrix4Trans, site, 0, &lane);
}
template <class T>
inline void LoadMatrix2Trans(u32 (&r)[2], Shared<T> row, int i, emulator::Site site = emulator::Here()) {
  static_assert(sizeof(T) == 2);
  emulator::MatrixLane lane{row.Address(i), r};
  emulator::Meet(emulator::Collective::kMatrix2Trans, site, 0, &lane);
}

}  // namespace regard::cuda
