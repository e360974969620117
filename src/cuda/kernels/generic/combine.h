// Folds the states that decode left of its splits, left to right, and ends the rows: sink, division, out and lse. A block
// of threads takes one tile of rows; tiles of one split wrote their rows themselves.
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
  const i64 first_slot = static_cast<i64>(BlockX()) * p.splits;
  const TileAddress at = DecodeTile(p, first_slot);
  if (at.b >= p.shape.batch) return;
  constexpr int kRows = 16, kM = kRows * kColumns, kL = kM + kRows, kFloats = kL + kRows;
  const Task task = MakeTask(p, kRows, at.b, at.kv_head, at.row_tile);
  if (!task.owned) return;
  const SplitRange splits = SplitsOf(task.any);
  if (splits.end - splits.begin <= 1) return;
  const float value_scale = ValueScaleOf(p.options, task.s.b, task.kv_head) * p.options.dropout_scale;
  const int dim = p.shape.head_dim_v;
  for (int work = ThreadIndex(); work < kRows * dim; work += kCombineThreads) {
    const int r = work / dim, d = work % dim;
    const Row row = MakeRow(p, task, r);
    if (!row.owned) continue;
    float m = -Infinity(), l = 0, o = 0;
    for (int split = splits.begin; split < splits.end && row.used; ++split) {
      const Global<const float> state(p.states + (first_slot + split) * kFloats);
      const Fold f = FoldOf(m, state.Load(kM + r));
      m = f.m;
      l = Folded(f, l, state.Load(kL + r));
      o = Folded(f, o, state.Load(r * kColumns + d));
    }
    RowEnd end{0.0f, -Infinity()};
    if (row.used) end = EndRow(m, l, SinkOf(p.options, row.query.head), value_scale);
    StoreElement(p.out.data, p.out_type, OutOffset(p, task.s, row.query) + d, row.used ? o * end.factor : 0.0f);
    if (d == 0) StoreLse(p, task.s, row.query, end.lse);
  }
}

}  // namespace regard::cuda::generic
