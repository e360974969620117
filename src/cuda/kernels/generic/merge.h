// (o_a, l_a) + (o_b, l_b) of docs/semantics.md, one warp a row. out may be o_a: a row is read before it is written.
#pragma once

#include "base/kernel.h"
#include "ptx/thread.h"
#include "tile/score.h"

namespace regard::cuda::generic {

inline constexpr int kMergeThreads = 128;

REGARD_DEVICE void MergeKernel(const MergeParams& p) {
  const i64 rows = static_cast<i64>(p.batch) * p.rows * p.heads;
  const i64 at = static_cast<i64>(BlockX()) * (kMergeThreads / 32) + Warp();
  if (at >= rows) return;
  const i64 head = at % p.heads, i = at / p.heads % p.rows, b = at / p.heads / p.rows;
  const float l_a = Global<const float>(p.lse_a).Load(b * p.lse_a_batch + head * p.lse_a_head + i);
  const float l_b = Global<const float>(p.lse_b).Load(b * p.lse_b_batch + head * p.lse_b_head + i);
  const float m = Larger(l_a, l_b);
  const bool empty = m == -Infinity();
  const float w_a = empty ? 0.0f : Exp2((l_a - m) * kLog2E), w_b = empty ? 0.0f : Exp2((l_b - m) * kLog2E);
  const float sum = w_a + w_b;
  const float f_a = empty ? 0.0f : Divide(w_a, sum), f_b = empty ? 0.0f : Divide(w_b, sum);
  const i64 from_a = b * p.a.batch + i * p.a.row + head * p.a.head, from_b = b * p.b.batch + i * p.b.row + head * p.b.head;
  const i64 to = b * p.out.batch + i * p.out.row + head * p.out.head;
  for (int d = Lane(); d < p.head_dim_v; d += 32) {
    // A side of weight 0 adds nothing, whatever it holds.
    const float x = f_a == 0 ? 0.0f : f_a * LoadElement(p.a.data, p.a_type, from_a + d);
    const float y = f_b == 0 ? 0.0f : f_b * LoadElement(p.b.data, p.b_type, from_b + d);
    StoreElement(p.out.data, p.out_type, to + d, x + y);
  }
  WarpBarrier();  // every lane has read the lse, which lse_out may be
  if (Lane() == 0) {
    const float lse = empty ? -Infinity() : m + Log2(sum) * kLn2;
    Global<float>(p.lse_out).Store(b * p.lse_out_batch + head * p.lse_out_head + i, lse);
  }
}

}  // namespace regard::cuda::generic
