// Forward on CUDA cores: any types, any head dims up to 512, every option. A block of 128 threads holds a tile of 16 query
// rows; q as f32 lies in shared memory, a block of 64 keys passes through it 32 dims at a time, values come straight from
// memory, neighbouring threads reading neighbouring columns.
//
// Numerics, of prefill and decode alike: a dot product is one chain of fused steps over head_dim (then over qv's dims);
// the maximum advances over blocks of 64 keys; a block's weights are summed by eight threads, each in order, then by a
// tree; PV is one chain over keys; states fold at multiples of 2048 keys.
#pragma once

#include "base/kernel.h"
#include "ptx/shuffle.h"
#include "tile/dropout.h"
#include "tile/kv_gather.h"
#include "tile/rows.h"
#include "tile/schedule.h"
#include "tile/state.h"

namespace regard::cuda::generic {

template <GenericConfig C>
struct Forward {
  static constexpr GenericLayout kLayout{C};
  static constexpr int kThreads = C.kThreads, kTile = C.kTileRows, kChunk = C.kChunk;
  // A thread's sums: kColumns columns ThreadIndex() % kWidth + kWidth * n of kRows rows.
  static constexpr int kWidth = C.head_dim_v < kThreads ? C.head_dim_v : kThreads;
  static constexpr int kColumns = C.head_dim_v / kWidth, kRows = kTile * kWidth / kThreads;
  // A thread's dot products: key ThreadIndex() % 64 for half of the rows.
  static constexpr int kDots = kTile * kBlockKeys / kThreads;
  // Softmax: eight threads a row, each with every eighth key.
  static constexpr int kParts = kThreads / kTile, kWeightPitch = GenericLayout::kWeightPitch;
  static constexpr float kMasked = -1;  // stands in for the weight of a key that the row does not see

  const ForwardParams& p;
  Task task;
  float o[kColumns][kRows];
  float m, l;              // of row ThreadIndex() / 8
  bool folded = false;     // the slot in memory holds the splits so far

  REGARD_DEVICE explicit Forward(const ForwardParams& params) : p(params) {}

  REGARD_DEVICE static Shared<float> Queries() { return Shared<float>(kLayout.q); }        // (dim, row)
  REGARD_DEVICE static Shared<float> Keys() { return Shared<float>(kLayout.keys); }        // (key, dim of the chunk)
  REGARD_DEVICE static Shared<float> Weights() { return Shared<float>(kLayout.weights); }  // (row, key)
  REGARD_DEVICE static Shared<float> Factors() { return Shared<float>(kLayout.factors); }  // (row)
  REGARD_DEVICE static PlaceTables Places() { return PlaceTables(kLayout.places); }
  REGARD_DEVICE static int FirstRow() { return ThreadIndex() / kWidth * kRows; }
  REGARD_DEVICE static int SoftmaxRow() { return ThreadIndex() / kParts; }

  REGARD_DEVICE void Clear() {
    REGARD_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      REGARD_UNROLL
      for (int r = 0; r < kRows; ++r) o[n][r] = 0;
    }
    m = -Infinity();
    l = 0;
  }

  // Rows of q (dims from `at` on) times a factor into shared memory; zero where there is no query.
  REGARD_DEVICE void LoadRows(const Rows& from, int dims, int at, float factor) const {
    REGARD_ROLLED
    for (int work = ThreadIndex(); work < kTile * dims; work += kThreads) {
      const int r = work / dims, d = work % dims;
      const i64 row = task.r0 + r, i = row / p.shape.group, head = task.kv_head * p.shape.group + (row - i * p.shape.group);
      float x = 0;
      if (i < task.s.seq_q) {
        x = LoadElement(from.data, p.q_type, QueryOffset(p.shape, task.s, from, i, head) + d) * factor;
      }
      Queries().Store((at + d) * kTile + r, x);
    }
  }

  // Continues the dot products over `dims` dims of k, or of v for qv, whose queries lie from dim `at` on.
  REGARD_DEVICE void Dots(float (&dots)[kDots], const Rows& keys, int dims, int at, int block,
                          const BlockPlace& common, int count) const {
    const int key = ThreadIndex() % kBlockKeys, row0 = ThreadIndex() / kBlockKeys * kDots;
    REGARD_ROLLED
    for (int chunk = 0; chunk < dims; chunk += kChunk) {
      BlockBarrier();
      REGARD_BY_FOUR
      for (int work = ThreadIndex(); work < kBlockKeys * kChunk; work += kThreads) {
        const int n = work / kChunk, d = work % kChunk;
        const Place place = Places().Of(common, block, n);
        const bool valid = n < count && place.page >= 0 && chunk + d < dims;
        const float x = valid ? LoadElement(keys.data, p.kv_type, OffsetOf(keys, place, task.kv_head) + chunk + d) : 0;
        Keys().Store(n * GenericLayout::kKeyPitch + d, x);
      }
      BlockBarrier();
      const int here = Min(kChunk, dims - chunk);
      REGARD_BY_FOUR
      for (int d = 0; d < here; ++d) {
        const float k = Keys().Load(key * GenericLayout::kKeyPitch + d);
        REGARD_UNROLL
        for (int r = 0; r < kDots; r += 4) {
          const Vec16 q = Queries().Load16((at + chunk + d) * kTile + row0 + r);
          REGARD_UNROLL
          for (int n = 0; n < 4; ++n) dots[r + n] = Fma(FloatOf(q.word[n]), k, dots[r + n]);
        }
      }
    }
  }

  // Dot products in shared memory to weights there; m, l and the rows' factors follow. Keys n >= count do not exist.
  REGARD_DEVICE void Weigh(i32 first, float scale, const u32 (&bad)[2]) {
    const int r = SoftmaxRow(), part = ThreadIndex() % kParts;
    const Row row = RowTable<C>::Of(p, task, r);
    float top = -Infinity();
    REGARD_ROLLED
    for (int n = part; n < kBlockKeys; n += kParts) {
      const i32 j = first + n;
      const i64 at = task.s.leftpad + static_cast<i64>(j);
      bool sees = j >= row.keys.begin && j < row.keys.end && ((bad[n / 32] >> (n % 32)) & 1) == 0;
      sees = sees && MaskShows(p.options, row.query, at);
      float x = -Infinity();
      if (sees) x = Score(p.options, row.query, Weights().Load(r * kWeightPitch + n), scale, at) * kLog2E;
      top = Larger(top, x);
      Weights().Store(r * kWeightPitch + n, x);
    }
    for (int lanes = 1; lanes < kParts; lanes *= 2) top = Larger(top, ShuffleXor(top, lanes));
    top = Larger(m, top);
    const float base = SafeMaximum(top), factor = Exp2(m - base);
    const u32 position = static_cast<u32>(row.query.position - task.s.leftpad);
    const u32 dropout_row = static_cast<u32>(task.s.b * p.shape.heads_q + row.query.head);
    float sum = 0;
    REGARD_ROLLED
    for (int n = part; n < kBlockKeys; n += kParts) {
      const float x = Weights().Load(r * kWeightPitch + n);
      float weight = Exp2(x - base);
      sum += weight;
      if (x == -Infinity()) {
        weight = kMasked;
      } else if (p.options.dropout != 0) {
        const u32 key = static_cast<u32>(first + n);
        if (!KeepsKey(p.options, key, position, dropout_row)) weight = 0;
      }
      Weights().Store(r * kWeightPitch + n, weight);
    }
    for (int lanes = 1; lanes < kParts; lanes *= 2) sum += ShuffleXor(sum, lanes);
    m = top;
    l = Fma(l, factor, sum);
    if (part == 0) Factors().Store(r, factor);
  }

  REGARD_DEVICE void AddValues(int block, const BlockPlace& common, int count) {
    REGARD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const float factor = Factors().Load(FirstRow() + r);
      REGARD_UNROLL
      for (int n = 0; n < kColumns; ++n) o[n][r] *= factor;
    }
    // Four keys at a time: their weights are one load a row. Keys past the end have weight kMasked.
    const int keys = Min(count, kBlockKeys);
    REGARD_ROLLED
    for (int key = 0; key < keys; key += 4) {
      float v[4][kColumns];
      REGARD_UNROLL
      for (int k = 0; k < 4; ++k) {
        const Place place = key + k < keys ? Places().Of(common, block, key + k) : Place{};
        const i64 offset = OffsetOf(p.cache.v, place, task.kv_head);
        REGARD_UNROLL
        for (int n = 0; n < kColumns; ++n) {
          const int d = ThreadIndex() % kWidth + n * kWidth;
          const bool there = place.page >= 0 && d < p.shape.head_dim_v;
          v[k][n] = there ? LoadElement(p.cache.v.data, p.kv_type, offset + d) : 0;
        }
      }
      REGARD_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const Vec16 weights = Weights().Load16((FirstRow() + r) * kWeightPitch + key);
        REGARD_UNROLL
        for (int k = 0; k < 4; ++k) {
          const float weight = FloatOf(weights.word[k]);
          REGARD_UNROLL
          for (int n = 0; n < kColumns; ++n) {
            if (!(weight < 0)) o[n][r] = Fma(weight, v[k][n], o[n][r]);
          }
        }
      }
    }
  }

  // A state of ForwardParams: (row, column) sums, maxima, sums of weights.
  REGARD_DEVICE Global<float> Slot(i64 slot) const { return Global<float>(p.states + slot * StateFloats(C)); }
  REGARD_DEVICE static i64 SlotIndex(int n, int r) {
    return static_cast<i64>(FirstRow() + r) * C.head_dim_v + ThreadIndex() % kWidth + n * kWidth;
  }
  static constexpr i64 kM = static_cast<i64>(kTile) * C.head_dim_v, kL = kM + kTile;

  REGARD_DEVICE void StoreSlot(i64 at) {
    const Global<float> slot = Slot(at);
    REGARD_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      REGARD_UNROLL
      for (int r = 0; r < kRows; ++r) slot.Store(SlotIndex(n, r), o[n][r]);
    }
    if (ThreadIndex() % kParts == 0) {
      slot.Store(kM + SoftmaxRow(), m);
      slot.Store(kL + SoftmaxRow(), l);
    }
    folded = true;
    BlockBarrier();
  }

  // Joins the state in registers to the slot's, which comes first. The rows' factors pass through shared memory.
  REGARD_DEVICE void FoldSlot(i64 at) {
    if (!folded) return;
    const Global<float> slot = Slot(at);
    BlockBarrier();
    const Fold mine = FoldOf(slot.Load(kM + SoftmaxRow()), m);
    m = mine.m;
    l = Folded(mine, slot.Load(kL + SoftmaxRow()), l);
    if (ThreadIndex() % kParts == 0) {
      Weights().Store(SoftmaxRow() * 2, mine.left);
      Weights().Store(SoftmaxRow() * 2 + 1, mine.right);
    }
    BlockBarrier();
    REGARD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Fold f{0, Weights().Load((FirstRow() + r) * 2), Weights().Load((FirstRow() + r) * 2 + 1)};
      REGARD_UNROLL
      for (int n = 0; n < kColumns; ++n) o[n][r] = Folded(f, slot.Load(SlotIndex(n, r)), o[n][r]);
    }
    BlockBarrier();
  }

  // Blocks [begin, end); prefill folds splits through slot BlockX().
  REGARD_DEVICE void Walk(int begin, int end) {
    constexpr int kBlocksPerSplit = kSplitKeys / kBlockKeys;
    const float scale = p.qv.data == nullptr ? ScaleOf(p.options, task.s.b, task.kv_head)
                                             : QueryScaleOf(p.options, task.s.b, task.kv_head);
    bool any_bad = false;
    for (int block = begin; block < end; ++block) {
      if (!C.split && block > begin && block % kBlocksPerSplit == 0) {
        FoldSlot(BlockX());
        StoreSlot(BlockX());
        Clear();
      }
      BlockBarrier();
      Places().Fill(p.cache, task.s, block);
      BlockBarrier();
      const BlockPlace common = Places().BlockOf(p.cache, task.s, block);
      any_bad = any_bad || common.AnyBad();
      const i32 first = block * kBlockKeys;
      const int count = task.s.seq_kv - task.s.leftpad - first;
      float dots[kDots];
      REGARD_UNROLL
      for (int r = 0; r < kDots; ++r) dots[r] = 0;
      Dots(dots, p.cache.k, p.shape.head_dim, 0, block, common, count);
      if constexpr (C.qv) Dots(dots, p.cache.v, p.shape.head_dim_v, C.head_dim, block, common, count);
      const int key = ThreadIndex() % kBlockKeys, row0 = ThreadIndex() / kBlockKeys * kDots;
      REGARD_UNROLL
      for (int r = 0; r < kDots; ++r) Weights().Store((row0 + r) * kWeightPitch + key, dots[r]);
      BlockBarrier();
      Weigh(first, scale, common.bad);
      BlockBarrier();
      AddValues(block, common, count);
    }
    if (any_bad) MarkError(p.shape, kBadPage);
  }

  REGARD_DEVICE void Write() const {
    const float value_scale = ValueScaleOf(p.options, task.s.b, task.kv_head) * p.options.dropout_scale;
    const Row mine = RowTable<C>::Of(p, task, SoftmaxRow());
    RowEnd end{0.0f, -Infinity()};
    if (mine.used) end = EndRow(m, l, SinkOf(p.options, mine.query.head), value_scale);
    BlockBarrier();
    if (ThreadIndex() % kParts == 0) {
      Factors().Store(SoftmaxRow(), end.factor);
      if (mine.owned) StoreLse(p, task.s, mine.query, end.lse);
    }
    BlockBarrier();
    REGARD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Row row = RowTable<C>::Of(p, task, FirstRow() + r);
      if (!row.owned) continue;
      const float factor = Factors().Load(FirstRow() + r);
      const i64 offset = OutOffset(p, task.s, row.query);
      REGARD_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        const int d = ThreadIndex() % kWidth + n * kWidth;
        if (d < p.shape.head_dim_v) StoreOut(p.out, p.out_type, offset + d, row.used ? o[n][r] * factor : 0.0f);
      }
    }
  }

  // A tile of rows; decode: those of its keys that lie in the given split. `slot` is where its state goes.
  REGARD_DEVICE void Run(const TileAddress& at, i64 slot) {
    task = MakeTask(p, kTile, at.b, at.kv_head, at.row_tile);
    if (!task.owned) return;
    const SplitRange splits = SplitsOf(task.any);
    const bool empty = splits.begin == splits.end;
    if (C.split && (empty ? at.split != 0 : at.split < splits.begin || at.split >= splits.end)) return;
    folded = false;
    Clear();
    BlockBarrier();  // nobody reads the last tile any more
    RowTable<C>::Fill(p, task);
    if constexpr (C.qv) {  // one chain runs over k and v, so that their descales go into the queries
      LoadRows(p.q, p.shape.head_dim, 0, KeyScaleOf(p.options, task.s.b, task.kv_head));
      LoadRows(p.qv, p.shape.head_dim_v, C.head_dim, ValueScaleOf(p.options, task.s.b, task.kv_head));
    } else {
      LoadRows(p.q, p.shape.head_dim, 0, 1.0f);
    }
    int begin = task.any.begin / kBlockKeys, end = empty ? begin : static_cast<int>(CeilDiv(task.any.end, kBlockKeys));
    if (C.split) {
      constexpr int kBlocksPerSplit = kSplitKeys / kBlockKeys;
      begin = Max(begin, at.split * kBlocksPerSplit);
      end = Min(end, (at.split + 1) * kBlocksPerSplit);
    }
    Walk(begin, end);
    BlockBarrier();
    if (C.split && splits.end - splits.begin > 1) {
      StoreSlot(slot);
    } else {
      FoldSlot(slot);
      Write();
    }
  }
};

template <GenericConfig C>
REGARD_DEVICE void ForwardKernel(const ForwardParams& p) {
  Forward<C> forward(p);
  if constexpr (C.split) {
    const TileAddress at = DecodeTile(p, BlockX());
    if (at.b < p.shape.batch) forward.Run(at, BlockX());
  } else {
    for (i64 tile = BlockX(); tile < TilesOf(p); tile += GridX()) forward.Run(PrefillTile(p, tile), BlockX());
  }
  ClearUnowned(p, C.kThreads);
}

}  // namespace regard::cuda::generic
