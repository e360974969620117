// Emulated twin of src/cuda/kernels/ptx/mma.h, where the fragments are drawn.
#pragma once

#include "base/types.h"
#include "tests/emulator/device.h"

namespace regard::cuda {

inline void MmaF16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, emulator::Site site = emulator::Here()) {
  emulator::Require(80, "mma.m16n8k16", site);
  emulator::MmaLane lane{d, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulator::Meet(emulator::Collective::kMmaF16, site, 0, &lane);
}
inline void MmaBF16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, emulator::Site site = emulator::Here()) {
  emulator::Require(80, "mma.m16n8k16", site);
  emulator::MmaLane lane{d, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulator::Meet(emulator::Collective::kMmaBF16, site, 0, &lane);
}
inline void MmaF16K8(float (&d)[4], u32 a0, u32 a1, u32 b0, emulator::Site site = emulator::Here()) {
  emulator::Require(75, "mma.m16n8k8", site);
  emulator::MmaLane lane{d, {a0, a1, 0, 0}, {b0, 0}};
  emulator::Meet(emulator::Collective::kMmaF16K8, site, 0, &lane);
}
inline void MmaTf32(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, emulator::Site site = emulator::Here()) {
  emulator::Require(80, "mma.m16n8k8 of tf32", site);
  emulator::MmaLane lane{d, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulator::Meet(emulator::Collective::kMmaTf32, site, 0, &lane);
}

}  // namespace regard::cuda
