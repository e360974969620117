// Forward of a few query rows over many keys: Flash-Decoding (Dao, Haziza, Massa, Sizov, 2023) with the heads of a group
// packed into one tile of 16 rows. A block of threads takes one split of the keys. Its warps share the tile: each makes
// the dot products of a quarter of a block's keys and adds the values to a quarter of the columns, so that every chain is
// the one that sm80/prefill.h runs, and a row has the same bits from both.
//
// Where a sequence has one split only, the block of threads writes out and lse itself; else it leaves the state of its
// split, and CombineKernel (generic/combine.h) folds.
#pragma once

#include "base/kernel.h"
#include "sm80/nonfinite.h"
#include "sm80/stages.h"

namespace regard::cuda::sm80 {

template <TensorConfig C>
struct Decode {
  static_assert(C.split && C.warps == 4 && C.tiles == 1);
  static constexpr TensorLayout kLayout{C};
  static constexpr int kUnits = C.head_dim_v / 16, kMost = (kUnits + 3) / 4;  // columns in sixteens; most of a warp
  static constexpr int kPitchK = TensorLayout::Pitch(C.head_dim), kPitchV = TensorLayout::Pitch(C.head_dim_v);
  static constexpr int kPitchW = TensorLayout::kWeightsPitch;

  const ForwardParams& p;
  Task task;
  float o[kMost][2][4];  // columns 16 (Warp() + 4 u) + 8 n: rows g and g + 8
  float m[2], l[2];      // of rows g and g + 8; the same in every warp, l in four parts
  float factor[2];       // by which the block at hand rescales them
  u32 weighty;           // sm80/nonfinite.h, of this warp's keys

  REGARD_DEVICE explicit Decode(const ForwardParams& params) : p(params) {}

  REGARD_DEVICE static int UnitOf(int u) { return Warp() + 4 * u; }
  REGARD_DEVICE static Shared<float> Maxima() { return Shared<float>(kLayout.maxima); }  // (warp, row)
  REGARD_DEVICE static Shared<float> Sums() { return Shared<float>(kLayout.sums); }      // (warp, row, part)
  REGARD_DEVICE static Shared<u16> Weights() { return Shared<u16>(kLayout.weights); }    // (row, key)

  // Dot products of the tile with this warp's 16 keys of the block.
  REGARD_DEVICE void Dots(float (&x)[2][4], Shared<u16> keys) const {
    REGARD_UNROLL
    for (int n = 0; n < 2; ++n) {
      REGARD_UNROLL
      for (int e = 0; e < 4; ++e) x[n][e] = 0;
    }
    REGARD_UNROLL
    for (int d = 0; d < C.head_dim; d += 16) {
      u32 a[4], b[4];
      LoadA(a, Stages<C>::Queries(), kPitchK, 0, d);
      LoadKeys(b, keys, kPitchK, Warp() * 16, d);
      Multiply<C>(x[0], a, b[0], b[1]);
      Multiply<C>(x[1], a, b[2], b[3]);
    }
  }

  // Scores to weights in shared memory. Every warp learns every row's maximum and sum.
  REGARD_DEVICE void Weigh(float (&x)[2][4], i32 first) {
    const int g = Lane() / 4, c = Lane() % 4;
    REGARD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float top = RowMaximum(Larger(Larger(x[0][half * 2], x[0][half * 2 + 1]),
                                          Larger(x[1][half * 2], x[1][half * 2 + 1])));
      if (c == 0) Maxima().Store(Warp() * 16 + half * 8 + g, top);
    }
    BlockBarrier();
    REGARD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = half * 8 + g;
      const float top = Larger(Larger(Maxima().Load(row), Maxima().Load(16 + row)),
                               Larger(Maxima().Load(32 + row), Maxima().Load(48 + row)));
      const float raised = Larger(m[half], top), base = SafeMaximum(raised);
      factor[half] = Exp2(m[half] - base);
      m[half] = raised;
      REGARD_UNROLL
      for (int n = 0; n < 2; ++n) {
        x[n][half * 2] = Exp2(x[n][half * 2] - base);
        x[n][half * 2 + 1] = Exp2(x[n][half * 2 + 1] - base);
      }
      Sums().Store((Warp() * 16 + row) * 4 + c, PairSum(x, 0, half));
    }
    if constexpr (C.options) {
      if (p.options.dropout != 0) DropWeights<C, 2>(x, p, task, 0, first, Warp() * 2);
    }
    const Shared<u32> pairs(kLayout.weights);
    weighty = 0;
    REGARD_UNROLL
    for (int n = 0; n < 2; ++n) {
      const int key = Warp() * 16 + n * 8 + c * 2;
      REGARD_UNROLL
      for (int half = 0; half < 2; ++half) {
        const u32 pair = Pack<C>(x[n][half * 2], x[n][half * 2 + 1]);
        pairs.Store(((g + half * 8) * kPitchW + key) / 2, pair);
        weighty |= WeightyBits(pair) << (16 * half + (Warp() * 2 + n) * 2);
      }
    }
    REGARD_UNROLL
    for (int u = 0; u < kMost; ++u) {
      REGARD_UNROLL
      for (int n = 0; n < 2; ++n) {
        REGARD_UNROLL
        for (int e = 0; e < 4; ++e) o[u][n][e] *= factor[e / 2];
      }
    }
  }

  // After the barrier that follows Weigh: the block's weights into l.
  REGARD_DEVICE void AddWeights() {
    const int g = Lane() / 4, c = Lane() % 4;
    REGARD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int at = (half * 8 + g) * 4 + c;
      const float sum = BlockSum(Sums().Load(at), Sums().Load(64 + at), Sums().Load(128 + at), Sums().Load(192 + at));
      l[half] = Fma(l[half], factor[half], sum);
    }
  }

  REGARD_DEVICE void AddValues(Shared<u16> values) {
    REGARD_UNROLL
    for (int key = 0; key < kBlockKeys; key += 16) {
      u32 a[4];
      LoadA(a, Weights(), kPitchW, 0, key);
      REGARD_UNROLL
      for (int u = 0; u < kMost; ++u) {
        if (UnitOf(u) >= kUnits) continue;
        u32 b[4];
        LoadValues(b, values, kPitchV, key, UnitOf(u) * 16);
        Multiply<C>(o[u][0], a, b[0], b[1]);
        Multiply<C>(o[u][1], a, b[2], b[3]);
      }
    }
  }

  // As in sm80/prefill.h. Each warp knows what its own keys are to the rows; they tell one another.
  REGARD_DEVICE void SetApartNonFinite(u32 seen, Shared<u16> values) {
    if (!AnyNonFinite<C>(values)) return;
    const Shared<u32> words(kLayout.words);
    words.Store(ThreadIndex(), seen);
    words.Store(C.Threads() + ThreadIndex(), weighty);
    BlockBarrier();
    u32 all_seen = 0, all_weighty = 0;
    REGARD_UNROLL
    for (int w = 0; w < C.warps; ++w) {
      all_seen |= words.Load(w * 32 + Lane());
      all_weighty |= words.Load(C.Threads() + w * 32 + Lane());
    }
    REGARD_UNROLL
    for (int u = 0; u < kMost; ++u) AddNonFinite<C, 2>(o[u], values, UnitOf(u) * 16, all_seen, all_weighty);
    BlockBarrier();
    ClearNonFinite<C>(values);
    BlockBarrier();
  }

  // The blocks of one split.
  REGARD_DEVICE void Walk(int begin, int end) {
    const float scale = TileScale<C>(p.options, task.s.b, task.kv_head);
    const Stages<C> stages(p, task);
    stages.Begin(begin);
    bool any_bad = false;
    for (int block = begin; block < end; ++block) {
      const bool more = block + 1 < end;
      const auto here = stages.AwaitKeys(block, more);
      any_bad = any_bad || here.AnyBad();
      float x[2][4];
      Dots(x, here.keys);
      const u32 seen = ScoreTile<C, 2>(x, p, task, 0, scale, here.first, Warp() * 2, here.whole, here.bad);
      Weigh(x, here.first);
      const Shared<u16> values = stages.AwaitValues(block, more);
      AddWeights();
      if (C.options || !here.whole) SetApartNonFinite(seen, values);
      AddValues(values);
    }
    if (any_bad) MarkError(p.shape, kBadPage);
    REGARD_UNROLL
    for (int half = 0; half < 2; ++half) l[half] = RowSum(l[half]);
  }

  // out and lse of the whole tile.
  REGARD_DEVICE void Write() const {
    const bool in_pairs = OutInPairs(p);
    const float value_scale = ValueScaleOf(p.options, task.s.b, task.kv_head) * p.options.dropout_scale;
    REGARD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const Row row = RowTable<C>::Of(p, task, half * 8 + Lane() / 4);
      if (!row.owned) continue;
      RowEnd end{0.0f, -Infinity()};
      if (row.used) end = EndRow(m[half], l[half], SinkOf(p.options, row.query.head), value_scale);
      const OutRow out(p, OutOffset(p, task.s, row.query), in_pairs);
      REGARD_UNROLL
      for (int u = 0; u < kMost; ++u) {
        if (UnitOf(u) >= kUnits) continue;
        REGARD_UNROLL
        for (int n = 0; n < 2; ++n) {
          const int column = UnitOf(u) * 16 + n * 8 + Lane() % 4 * 2;
          out.Store(column, o[u][n][half * 2] * end.factor, o[u][n][half * 2 + 1] * end.factor);
        }
      }
      if (Warp() == 0 && Lane() % 4 == 0) StoreLse(p, task.s, row.query, end.lse);
    }
  }

  // The state of the split (ForwardParams::states).
  REGARD_DEVICE void StoreState(i64 slot) const {
    const Global<float> state(p.states + slot * StateFloats(C));
    const int g = Lane() / 4, c = Lane() % 4;
    REGARD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = half * 8 + g;
      REGARD_UNROLL
      for (int u = 0; u < kMost; ++u) {
        if (UnitOf(u) >= kUnits) continue;
        REGARD_UNROLL
        for (int n = 0; n < 2; ++n) {
          const int at = row * C.head_dim_v + UnitOf(u) * 16 + n * 8 + c * 2;
          state.Store(at, o[u][n][half * 2]);
          state.Store(at + 1, o[u][n][half * 2 + 1]);
        }
      }
      if (Warp() == 0 && c == 0) {
        state.Store(16 * C.head_dim_v + row, m[half]);
        state.Store(16 * C.head_dim_v + 16 + row, l[half]);
      }
    }
  }

  REGARD_DEVICE void Run(const TileAddress& at, i64 slot) {
    task = MakeTask(p, 16, at.b, at.kv_head, at.row_tile);
    if (!task.owned) return;
    constexpr int kBlocksPerSplit = kSplitKeys / kBlockKeys;
    const SplitRange splits = SplitsOf(task.any);
    // Split 0 answers for a tile that sees no key.
    const bool empty = splits.begin == splits.end;
    if (empty ? at.split != 0 : at.split < splits.begin || at.split >= splits.end) return;
    REGARD_UNROLL
    for (int half = 0; half < 2; ++half) {
      m[half] = -Infinity();
      l[half] = 0;
    }
    REGARD_UNROLL
    for (int u = 0; u < kMost; ++u) {
      REGARD_UNROLL
      for (int n = 0; n < 2; ++n) {
        REGARD_UNROLL
        for (int e = 0; e < 4; ++e) o[u][n][e] = 0;
      }
    }
    RowTable<C>::Fill(p, task);
    LoadQueries<C>(Stages<C>::Queries(), p, task.s, at.kv_head, task.r0);
    if (!empty) {
      const int begin = Max(task.any.begin / kBlockKeys, at.split * kBlocksPerSplit);
      const int end = Min(static_cast<int>(CeilDiv(task.any.end, kBlockKeys)), (at.split + 1) * kBlocksPerSplit);
      Walk(begin, end);
    } else {
      BlockBarrier();
    }
    if (splits.end - splits.begin <= 1) {
      Write();
    } else {
      StoreState(slot);
    }
  }
};

template <TensorConfig C>
REGARD_DEVICE void DecodeKernel(const ForwardParams& p) {
  const TileAddress at = DecodeTile(p, BlockX());
  if (at.b < p.shape.batch) {
    Decode<C> decode(p);
    decode.Run(at, BlockX());
  }
  ClearUnowned(p, C.Threads());
}

}  // namespace regard::cuda::sm80
