// Rows of a tile in shared memory, and what the lanes of a warp do to their scores: fragment coordinates are those of
// ptx/mma.h, a lane holds keys 2c, 2c + 1 of every eight for the rows g and g + 8.
#pragma once

#include "ptx/shuffle.h"
#include "sm80/products.h"
#include "tile/dropout.h"
#include "tile/rows.h"
#include "tile/schedule.h"
#include "tile/state.h"

namespace regard::cuda::sm80 {

// Scores of kTiles * 8 keys from `first` (j') on, of the rows g (x[n][0..1]) and g + 8 (x[n][2..3]) of a 16-row tile: from
// dot products to scores times log2(e), -inf where the row does not see the key. Returns the words of the keys seen
// (sm80/nonfinite.h), key tiles numbered from n0.
template <TensorConfig C, int kTiles>
REGARD_DEVICE u32 ScoreTile(float (&x)[kTiles][4], const ForwardParams& p, const Task& task, int row0, float scale,
                            i32 first, int n0, bool whole, const u32 (&bad)[2]) {
  const int g = Lane() / 4, c = Lane() % 4;
  u32 seen = 0;
  if constexpr (!C.options) {
    KeyRange keys[2];
    if (!whole) {
      keys[0] = RowTable<C>::KeysOf(row0 + g);
      keys[1] = RowTable<C>::KeysOf(row0 + g + 8);
    }
    REGARD_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      REGARD_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int half = e / 2, key = (n0 + n) * 8 + c * 2 + e % 2;
        x[n][e] *= scale;
        if (!whole) {
          const i32 j = first + key;
          const bool sees = j >= keys[half].begin && j < keys[half].end && ((bad[key / 32] >> (key % 32)) & 1) == 0;
          if (!sees) x[n][e] = -Infinity();
          seen |= static_cast<u32>(sees) << (16 * half + (n0 + n) * 2 + e % 2);
        }
      }
    }
    return seen;
  }
  const Row rows[2] = {RowTable<C>::Of(p, task, row0 + g), RowTable<C>::Of(p, task, row0 + g + 8)};
  REGARD_UNROLL
  for (int n = 0; n < kTiles; ++n) {
    REGARD_UNROLL
    for (int e = 0; e < 4; ++e) {
      const int half = e / 2, key = (n0 + n) * 8 + c * 2 + e % 2;
      const i32 j = first + key;
      const Row& row = rows[half];
      const i64 at = task.s.leftpad + static_cast<i64>(j);
      bool sees = j >= row.keys.begin && j < row.keys.end && ((bad[key / 32] >> (key % 32)) & 1) == 0;
      sees = sees && MaskShows(p.options, row.query, at);
      x[n][e] = sees ? Score(p.options, row.query, x[n][e], scale, at) * kLog2E : -Infinity();
      sees = sees && x[n][e] != -Infinity();
      seen |= static_cast<u32>(sees) << (16 * half + (n0 + n) * 2 + e % 2);
    }
  }
  return seen;
}

// What multiplies a dot product: with options the plain scale, else log2(e) as well.
template <TensorConfig C>
REGARD_DEVICE float TileScale(const Options& o, int b, int kv_head) {
  const float scale = ScaleOf(o, b, kv_head);
  return C.options ? scale : scale * kLog2E;
}

// Weights that dropout drops become 0; those that stay are scaled at the end.
template <TensorConfig C, int kTiles>
REGARD_DEVICE void DropWeights(float (&x)[kTiles][4], const ForwardParams& p, const Task& task, int row0, i32 first,
                               int n0) {
  const Options& o = p.options;
  const int c = Lane() % 4;
  REGARD_UNROLL
  for (int half = 0; half < 2; ++half) {
    const QueryRow query = RowTable<C>::Of(p, task, row0 + Lane() / 4 + half * 8).query;
    const u32 position = static_cast<u32>(query.position - task.s.leftpad);
    const u32 row = static_cast<u32>(task.s.b * p.shape.heads_q + query.head);
    REGARD_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      const u32 key = static_cast<u32>(first + (n0 + n) * 8 + c * 2);
      const RandomWords words = DropoutWords(o, key / 4, position, row);
      REGARD_UNROLL
      for (int e = 0; e < 2; ++e) {
        const u32 word = c % 2 == 0 ? words.word[e] : words.word[2 + e];
        if (!Keeps(o, word)) x[n][half * 2 + e] = 0;
      }
    }
  }
}

// The sum of a pair of key tiles, of row half `half`: a leaf of the tree that sums a block's weights.
template <int kTiles>
REGARD_DEVICE float PairSum(const float (&x)[kTiles][4], int n, int half) {
  return (x[n][half * 2] + x[n][half * 2 + 1]) + (x[n + 1][half * 2] + x[n + 1][half * 2 + 1]);
}
// The whole block from its four leaves.
REGARD_DEVICE float BlockSum(float u0, float u1, float u2, float u3) { return (u0 + u1) + (u2 + u3); }

// The four lanes of a row to one sum.
REGARD_DEVICE float RowSum(float x) {
  x += ShuffleXor(x, 1);
  return x + ShuffleXor(x, 2);
}
REGARD_DEVICE float RowMaximum(float x) {
  x = Larger(x, ShuffleXor(x, 1));
  return Larger(x, ShuffleXor(x, 2));
}

}  // namespace regard::cuda::sm80
