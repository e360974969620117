// Folds the states that decode left of its splits, left to right, and ends the rows: sink, division, out and lse. A warp
// takes a row; rows of tiles with one split were written by decode itself.
#pragma once

#include "base/kernel.h"
#include "tile/rows.h"
#include "tile/schedule.h"
#include "tile/state.h"

namespace regard::cuda::generic {

inline constexpr int kCombineThreads = 128;

// kColumns: the padded head_dim_v of the decode kernel that left the states, of 16 rows each.
template <int kColumns>
REGARD_DEVICE void CombineKernel(const ForwardParams& p) {
  constexpr int kRows = 16, kM = kRows * kColumns, kL = kM + kRows, kFloats = kL + kRows;
  const i64 at_row = static_cast<i64>(BlockX()) * (kCombineThreads / 32) + Warp();
  const i64 first_slot = at_row / kRows * p.splits;
  const int r = static_cast<int>(at_row % kRows);
  const TileAddress at = DecodeTile(p, first_slot);
  if (at.b >= p.shape.batch) return;
  const Task task = MakeTask(p, kRows, at.b, at.kv_head, at.row_tile);
  if (!task.owned) return;
  const SplitRange splits = SplitsOf(task.any);
  if (splits.end - splits.begin <= 1) return;
  const Row row = MakeRow(p, task, r);
  if (!row.owned) return;

  const i64 offset = OutOffset(p, task.s, row.query);
  const float value_scale = ValueScaleOf(p.options, task.s.b, task.kv_head) * p.options.dropout_scale;
  const float sink = SinkOf(p.options, row.query.head);
  for (int d = Lane(); d < p.shape.head_dim_v; d += 32) {
    float m = -Infinity(), l = 0, o = 0;
    for (int split = splits.begin; split < splits.end && row.used; ++split) {
      const Global<const float> state(p.states + (first_slot + split) * kFloats);
      const Fold f = FoldOf(m, state.Load(kM + r));
      m = f.m;
      l = Folded(f, l, state.Load(kL + r));
      o = Folded(f, o, state.Load(r * kColumns + d));
    }
    RowEnd end{0.0f, -Infinity()};
    if (row.used) end = EndRow(m, l, sink, value_scale);
    StoreElement(p.out.data, p.out_type, offset + d, row.used ? o * end.factor : 0.0f);
    if (d == 0) StoreLse(p, task.s, row.query, end.lse);
  }
}

}  // namespace regard::cuda::generic
