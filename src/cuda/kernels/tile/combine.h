// Folds the states that decode left of its splits, left to right, and ends the rows: sink, division, out and lse. A block
// of threads takes one tile of rows; tiles of one split wrote their rows themselves.
#pragma once

#include "base/kernel.h"
#include "tile/rows.h"
#include "tile/schedule.h"
#include "tile/state.h"

namespace regard::cuda {

inline constexpr int kCombineThreads = 128;

// C: the configuration of the decode kernel that left the states.
template <auto C>
REGARD_DEVICE void CombineKernel(const ForwardParams& p) {
  const i64 first_slot = static_cast<i64>(BlockX()) * p.splits;
  const TileAddress at = DecodeTile(p, first_slot);
  if (at.b >= p.shape.batch) return;
  const Task task = MakeTask(p, C.TileRows(), at.b, at.kv_head, at.row_tile);
  if (!task.owned) return;
  const SplitRange splits = SplitsOf(task.any);
  if (splits.end - splits.begin <= 1) return;
  const float value_scale = ValueScaleOf(p.options, task.s.b, task.kv_head) * p.options.dropout_scale;
  constexpr int kRows = C.TileRows(), kM = kRows * C.head_dim_v, kL = kM + kRows;
  const int dim = p.shape.head_dim_v;
  for (int work = ThreadIndex(); work < kRows * dim; work += kCombineThreads) {
    const int r = work / dim, d = work % dim;
    const Row row = MakeRow(p, task, r);
    if (!row.owned) continue;
    float m = -Infinity(), l = 0, o = 0;
    for (int split = splits.begin; split < splits.end && row.used; ++split) {
      const Global<const float> state(p.states + (first_slot + split) * StateFloats(C));
      const Fold f = FoldOf(m, state.Load(kM + r));
      m = f.m;
      l = Folded(f, l, state.Load(kL + r));
      o = Folded(f, o, state.Load(r * C.head_dim_v + d));
    }
    RowEnd end{0.0f, -Infinity()};
    if (row.used) end = EndRow(m, l, SinkOf(p.options, row.query.head), value_scale);
    StoreElement(p.out.data, p.out_type, OutOffset(p, task.s, row.query) + d, row.used ? o * end.factor : 0.0f);
    if (d == 0) StoreLse(p, task.s, row.query, end.lse);
  }
}

}  // namespace regard::cuda
