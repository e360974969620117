// Matrix products of a warp, d += a b with f32 d. Fragments as in the PTX ISA, "Matrix Fragments for mma.m16n8k16" (and
// k8): with g = lane / 4 and c = lane % 4, a lane holds
//   d[0..1]: row g, columns 2c, 2c+1      d[2..3]: row g + 8, the same columns
//   a[0]: row g, k 2c, 2c+1   a[1]: row g + 8   a[2], a[3]: the same rows, k 2c+8, 2c+9    (16-bit pairs, low half first)
//   b[0]: k 2c, 2c+1 of column g          b[1]: k 2c+8, 2c+9
// k8 has the first half of a's and b's words. tf32: a[0] (g, c), a[1] (g + 8, c), a[2] (g, c + 4), a[3] (g + 8, c + 4);
// b[0] (c, g), b[1] (c + 4, g).
#pragma once

#include "base/types.h"

namespace regard::cuda {

REGARD_DEVICE void MmaF16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
REGARD_DEVICE void MmaBF16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
REGARD_DEVICE void MmaF16K8(float (&d)[4], u32 a0, u32 a1, u32 b0) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(b0));
}
REGARD_DEVICE void MmaTf32(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace regard::cuda
