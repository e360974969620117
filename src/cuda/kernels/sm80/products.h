// The two matrix products of a warp, over tiles in shared memory. Fragment coordinates: ptx/mma.h.
#pragma once

#include "base/config.h"
#include "ptx/convert.h"
#include "ptx/ldmatrix.h"
#include "ptx/math.h"
#include "ptx/mma.h"
#include "ptx/thread.h"

namespace regard::cuda::sm80 {

// d += a b over 16 steps of k.
template <TensorConfig C>
REGARD_DEVICE void Multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  if constexpr (C.products == Products::kK8) {
    static_assert(C.products != Products::kK8 || C.type == Element::kF16);
    MmaF16K8(d, a[0], a[1], b0);
    MmaF16K8(d, a[2], a[3], b1);
  } else if constexpr (C.type == Element::kF16) {
    MmaF16(d, a, b0, b1);
  } else {
    MmaBF16(d, a, b0, b1);
  }
}

template <TensorConfig C>
REGARD_DEVICE u32 Pack(float low, float high) {
  if constexpr (C.type == Element::kF16) return PackF16(low, high);
  return PackBF16(low, high);
}

// A 16 x 16 tile of a row-major matrix as operand a: rows from `row`, columns from `column`.
REGARD_DEVICE void LoadA(u32 (&a)[4], Shared<u16> matrix, int pitch, int row, int column) {
  const int lane = Lane();
  LoadMatrix4(a, matrix, (row + lane % 16) * pitch + column + lane / 16 * 8);
}

// Keys `key`..+15 (rows), dims `dim`..+15: b[0..1] for keys ..+7, b[2..3] for the next eight.
REGARD_DEVICE void LoadKeys(u32 (&b)[4], Shared<u16> keys, int pitch, int key, int dim) {
  const int lane = Lane();
  LoadMatrix4(b, keys, (key + lane / 16 * 8 + lane % 8) * pitch + dim + lane / 8 % 2 * 8);
}

// Keys `key`..+15, columns `column`..+15 of the values: b[0..1] for columns ..+7, b[2..3] for the next eight.
REGARD_DEVICE void LoadValues(u32 (&b)[4], Shared<u16> values, int pitch, int key, int column) {
  const int lane = Lane();
  LoadMatrix4Trans(b, values, (key + lane % 16) * pitch + column + lane / 16 * 8);
}

// A chain over keys or dims must not depend on how tiles are cut: every product of this file runs its k in order, one
// accumulator a result.

}  // namespace regard::cuda::sm80
