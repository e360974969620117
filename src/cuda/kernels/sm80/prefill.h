// Forward over tiles of query rows: FlashAttention-2 (Dao, 2023), algorithm 1, on mma.sync. A warp holds 16 * tiles rows
// with their sums in registers; the warps of a block share blocks of 64 keys that cp.async brings. Numerics, the same as
// decode's (sm80/decode.h): a dot product is one chain over head_dim, the maximum advances a block at a time, weights are
// summed by a fixed tree a block, PV is one chain over the block's keys, and states fold at multiples of 2048 keys.
// Invariant: after a block, (o, m, l) is the state (tile/state.h) of the split's keys so far; o and l of a row in lanes 4g
// to 4g + 3, l in four parts.
//
// A block of threads walks tiles, the longest first, so that ForwardParams::states needs one slot a resident block.
#pragma once

#include "base/kernel.h"
#include "sm80/nonfinite.h"
#include "sm80/stages.h"

namespace regard::cuda::sm80 {

template <TensorConfig C>
struct Prefill {
  static constexpr int kTiles = C.tiles, kColumns = C.head_dim_v / 8;
  static constexpr int kPitchK = TensorLayout::Pitch(C.head_dim), kPitchV = TensorLayout::Pitch(C.head_dim_v);
  static constexpr int kBlocksPerSplit = kSplitKeys / kBlockKeys;

  const ForwardParams& p;
  Task task;
  float o[kTiles][kColumns][4];
  float m[kTiles][2], l[kTiles][2];
  bool folded = false;   // the slot in memory holds the splits so far

  REGARD_DEVICE explicit Prefill(const ForwardParams& params) : p(params) {}

  REGARD_DEVICE static int FirstRow(int t) { return (Warp() * kTiles + t) * 16; }
  REGARD_DEVICE void Clear() {
    REGARD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      REGARD_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        REGARD_UNROLL
        for (int e = 0; e < 4; ++e) o[t][n][e] = 0;
      }
      REGARD_UNROLL
      for (int half = 0; half < 2; ++half) {
        m[t][half] = -Infinity();
        l[t][half] = 0;
      }
    }
  }

  // Dot products of the tile's rows with a block of keys.
  REGARD_DEVICE void Dots(float (&x)[kTiles][8][4], Shared<u16> keys) const {
    REGARD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      REGARD_UNROLL
      for (int n = 0; n < 8; ++n) {
        REGARD_UNROLL
        for (int e = 0; e < 4; ++e) x[t][n][e] = 0;
      }
    }
    REGARD_UNROLL
    for (int d = 0; d < C.head_dim; d += 16) {
      u32 a[kTiles][4];
      REGARD_UNROLL
      for (int t = 0; t < kTiles; ++t) LoadA(a[t], Stages<C>::Queries(), kPitchK, FirstRow(t), d);
      REGARD_UNROLL
      for (int n = 0; n < 8; n += 2) {
        u32 b[4];
        LoadKeys(b, keys, kPitchK, n * 8, d);
        REGARD_UNROLL
        for (int t = 0; t < kTiles; ++t) {
          Multiply<C>(x[t][n], a[t], b[0], b[1]);
          Multiply<C>(x[t][n + 1], a[t], b[2], b[3]);
        }
      }
    }
  }

  // Scores to weights: raises the maximum, rescales what is there, adds the block's weights to l.
  REGARD_DEVICE void Weigh(float (&x)[kTiles][8][4]) {
    REGARD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      REGARD_UNROLL
      for (int half = 0; half < 2; ++half) {
        float top = -Infinity();
        REGARD_UNROLL
        for (int n = 0; n < 8; ++n) {
          top = Larger(top, Larger(x[t][n][half * 2], x[t][n][half * 2 + 1]));
        }
        top = Larger(m[t][half], RowMaximum(top));
        const float base = SafeMaximum(top), factor = Exp2(m[t][half] - base);
        m[t][half] = top;
        REGARD_UNROLL
        for (int n = 0; n < 8; ++n) {
          x[t][n][half * 2] = Exp2(x[t][n][half * 2] - base);
          x[t][n][half * 2 + 1] = Exp2(x[t][n][half * 2 + 1] - base);
        }
        const float sum = BlockSum(PairSum(x[t], 0, half), PairSum(x[t], 2, half), PairSum(x[t], 4, half),
                                   PairSum(x[t], 6, half));
        l[t][half] = Fma(l[t][half], factor, sum);
        REGARD_UNROLL
        for (int n = 0; n < kColumns; ++n) {
          o[t][n][half * 2] *= factor;
          o[t][n][half * 2 + 1] *= factor;
        }
      }
    }
  }

  REGARD_DEVICE void AddValues(const u32 (&weights)[kTiles][8][2], Shared<u16> values) {
    REGARD_UNROLL
    for (int key = 0; key < kBlockKeys; key += 16) {
      REGARD_UNROLL
      for (int n = 0; n < kColumns; n += 2) {
        u32 b[4];
        LoadValues(b, values, kPitchV, key, n * 8);
        REGARD_UNROLL
        for (int t = 0; t < kTiles; ++t) {
          const u32 a[4] = {weights[t][key / 8][0], weights[t][key / 8][1], weights[t][key / 8 + 1][0],
                            weights[t][key / 8 + 1][1]};
          Multiply<C>(o[t][n], a, b[0], b[1]);
          Multiply<C>(o[t][n + 1], a, b[2], b[3]);
        }
      }
    }
  }

  // Infinite and NaN values out of a tile and onto the rows that see them.
  REGARD_DEVICE void SetApartNonFinite(const u32 (&weights)[kTiles][8][2], const u32 (&seen)[kTiles],
                                       Shared<u16> values) {
    if (!AnyNonFinite<C>(values)) return;
    REGARD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      u32 weighty = 0;
      REGARD_UNROLL
      for (int n = 0; n < 8; ++n) {
        REGARD_UNROLL
        for (int half = 0; half < 2; ++half) {
          weighty |= WeightyBits(weights[t][n][half]) << (16 * half + n * 2);
        }
      }
      AddNonFinite<C, kColumns>(o[t], values, 0, seen[t], weighty);
    }
    BlockBarrier();
    ClearNonFinite<C>(values);
    BlockBarrier();
  }

  // The slot of this block of threads: sums by (register, thread), then maxima and sums of weights by row.
  REGARD_DEVICE Global<float> Slot() const { return Global<float>(p.states + BlockX() * StateFloats(C)); }

  // Joins the state in registers to the slot's, which comes first; the result stays in registers.
  REGARD_DEVICE void FoldSlot() {
    if (!folded) return;
    const Global<float> slot = Slot();
    WarpBarrier();
    REGARD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      REGARD_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int row = FirstRow(t) + half * 8 + Lane() / 4;
        const float m_left = slot.Load(C.TileRows() * C.head_dim_v + row);
        const float l_left = slot.Load(C.TileRows() * (C.head_dim_v + 1) + row);
        const Fold f = FoldOf(m_left, m[t][half]);
        m[t][half] = f.m;
        l[t][half] = Folded(f, l_left, l[t][half]);
        REGARD_UNROLL
        for (int n = 0; n < kColumns; ++n) {
          REGARD_UNROLL
          for (int e = half * 2; e < half * 2 + 2; ++e) {
            const i64 at = static_cast<i64>((t * kColumns + n) * 4 + e) * C.Threads() + ThreadIndex();
            o[t][n][e] = Folded(f, slot.Load(at), o[t][n][e]);
          }
        }
      }
    }
    WarpBarrier();
  }

  REGARD_DEVICE void StoreSlot() {
    const Global<float> slot = Slot();
    REGARD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      REGARD_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int row = FirstRow(t) + half * 8 + Lane() / 4;
        if (Lane() % 4 == 0) {
          slot.Store(C.TileRows() * C.head_dim_v + row, m[t][half]);
          slot.Store(C.TileRows() * (C.head_dim_v + 1) + row, l[t][half]);
        }
      }
      REGARD_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        REGARD_UNROLL
        for (int e = 0; e < 4; ++e) {
          slot.Store(static_cast<i64>((t * kColumns + n) * 4 + e) * C.Threads() + ThreadIndex(), o[t][n][e]);
        }
      }
    }
    folded = true;
  }

  // The split is over: its four parts of l become one, and the splits before it come first.
  REGARD_DEVICE void EndSplit() {
    REGARD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      REGARD_UNROLL
      for (int half = 0; half < 2; ++half) l[t][half] = RowSum(l[t][half]);
    }
    FoldSlot();
  }

  // One block of keys, in its stage of shared memory.
  REGARD_DEVICE void Attend(i32 first, bool whole, float scale, const u32 (&bad)[2], float (&x)[kTiles][8][4],
                            u32 (&seen)[kTiles]) {
    REGARD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      seen[t] = ScoreTile<C, 8>(x[t], p, task, FirstRow(t), scale, first, 0, whole, bad);
    }
    Weigh(x);
    if constexpr (C.options) {
      if (p.options.dropout == 0) return;
      REGARD_UNROLL
      for (int t = 0; t < kTiles; ++t) DropWeights<C, 8>(x[t], p, task, FirstRow(t), first, 0);
    }
  }

  // All blocks that the tile sees, split by split; leaves the whole state in registers.
  REGARD_DEVICE void Walk() {
    const int begin = task.any.begin / kBlockKeys;
    const int end = task.any.begin < task.any.end ? static_cast<int>(CeilDiv(task.any.end, kBlockKeys)) : begin;
    if (begin >= end) return BlockBarrier();  // Write reads the rows that others filled in
    const Stages<C> stages(p, task);
    stages.Begin(begin);
    bool any_bad = false;
    for (int block = begin; block < end; ++block) {
      if (block > begin && block % kBlocksPerSplit == 0) {
        EndSplit();
        StoreSlot();
        Clear();
      }
      const bool more = block + 1 < end;
      const auto here = stages.AwaitKeys(block, more);
      any_bad = any_bad || here.AnyBad();
      float x[kTiles][8][4];
      u32 seen[kTiles];
      Dots(x, here.keys);
      Attend(here.first, here.whole, TileScale<C>(p.options, task.s.b, task.kv_head), here.bad, x, seen);
      u32 weights[kTiles][8][2];
      REGARD_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        REGARD_UNROLL
        for (int n = 0; n < 8; ++n) {
          weights[t][n][0] = Pack<C>(x[t][n][0], x[t][n][1]);
          weights[t][n][1] = Pack<C>(x[t][n][2], x[t][n][3]);
        }
      }
      const Shared<u16> values = stages.AwaitValues(block, more);
      if (C.options || !here.whole) SetApartNonFinite(weights, seen, values);
      AddValues(weights, values);
    }
    if (any_bad) MarkError(p.shape, kBadPage);
  }

  REGARD_DEVICE void Write() {
    const bool in_pairs = OutInPairs(p);
    const float value_scale = ValueScaleOf(p.options, task.s.b, task.kv_head) * p.options.dropout_scale;
    REGARD_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      REGARD_UNROLL
      for (int half = 0; half < 2; ++half) {
        const Row row = RowTable<C>::Of(p, task, FirstRow(t) + half * 8 + Lane() / 4);
        if (!row.owned) continue;
        RowEnd end{0.0f, -Infinity()};
        if (row.used) end = EndRow(m[t][half], l[t][half], SinkOf(p.options, row.query.head), value_scale);
        const OutRow out(p, OutOffset(p, task.s, row.query), in_pairs);
        REGARD_UNROLL
        for (int n = 0; n < kColumns; ++n) {
          out.Store(n * 8 + Lane() % 4 * 2, o[t][n][half * 2] * end.factor, o[t][n][half * 2 + 1] * end.factor);
        }
        if (Lane() % 4 == 0) StoreLse(p, task.s, row.query, end.lse);
      }
    }
  }

  REGARD_DEVICE void Run(const TileAddress& at) {
    task = MakeTask(p, C.TileRows(), at.b, at.kv_head, at.row_tile);
    if (!task.owned) return;
    folded = false;
    Clear();
    BlockBarrier();  // nobody reads the last tile any more
    RowTable<C>::Fill(p, task);
    LoadQueries<C>(Stages<C>::Queries(), p, task.s, at.kv_head, task.r0);
    Walk();
    EndSplit();
    task = MakeTask(p, C.TileRows(), at.b, at.kv_head, at.row_tile);  // again: kept through the loop it would cost registers
    Write();
  }
};

template <TensorConfig C>
REGARD_DEVICE void PrefillKernel(const ForwardParams& p) {
  Prefill<C> prefill(p);
  for (i64 tile = BlockX(); tile < TilesOf(p); tile += GridX()) prefill.Run(PrefillTile(p, tile));
  ClearUnowned(p, C.Threads());
}

}  // namespace regard::cuda::sm80
