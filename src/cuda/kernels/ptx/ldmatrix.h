// ldmatrix: four (two) 8 x 8 matrices of 16-bit elements from shared memory. Lanes 8m..8m+7 give the addresses of the
// rows of matrix m (16 bytes each, 16-byte aligned). Word m of a lane then holds row lane / 4, columns 2 (lane % 4) and
// the next of matrix m; with Trans of its transpose. Source: PTX ISA, ldmatrix.
#pragma once

#include "base/types.h"
#include "ptx/memory.h"

namespace regard::cuda {

template <class T>
REGARD_DEVICE void LoadMatrix4(u32 (&r)[4], Shared<T> row, int i) {
  static_assert(sizeof(T) == 2);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row.Address(i))
               : "memory");
}
template <class T>
REGARD_DEVICE void LoadMatrix4Trans(u32 (&r)[4], Shared<T> row, int i) {
  static_assert(sizeof(T) == 2);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row.Address(i))
               : "memory");
}
// Lanes 0..15 give the addresses; the others' are ignored but must be valid.
template <class T>
REGARD_DEVICE void LoadMatrix2Trans(u32 (&r)[2], Shared<T> row, int i) {
  static_assert(sizeof(T) == 2);
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(row.Address(i))
               : "memory");
}

}  // namespace regard::cuda
