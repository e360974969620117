// Gradients of one block of queries against one block of keys, of those that are packed.
#pragma once

#include "src/cpu/tile/gradient_run.h"

namespace regard::cpu::REGARD_ISA {

template <class M>
static bool Finite(const BackwardRun<M>& run) {
  return run.finite_queries && run.finite_keys;
}

// Which keys of a block each of its row tiles computes, [begin, end) from a whole panel to a whole vector, and which tiles
// each panel. The chains over them are cut closer: to the keys that a tile sees, [key_begin, key_end), and to the tiles
// that see any of kGradRows keys, [group_first, group_last).
struct BlockShape {
  int begin[kGradTiles], end[kGradTiles];
  int first[kGradPanels], last[kGradPanels];  // tiles
  int key_begin[kGradTiles], key_end[kGradTiles];
  int group_first[kGradTiles], group_last[kGradTiles];  // tiles
  bool general[kGradTiles];
};

// Scores of the pair, final where they need more than a scale.
template <class M>
static void ScoreBlock(BackwardRun<M>& run, int query, int key, const BlockShape& shape) {
  const ForwardParams& f = run.f;
  for (int panel = 0; panel < kGradPanels; ++panel) {
    const int k = panel * kPanelKeys;
    const float* keys = run.k_panels + static_cast<int64_t>(key + k) * RoundUp(run.size.steps, kLanes);
    for (int t = shape.first[panel]; t < shape.last[panel]; ++t) {
      if (k < shape.begin[t] || k >= shape.end[t]) continue;
      const int row = t * kGradRows;
      const auto scores = shape.end[t] - k > kLanes ? GradScores<M, 2> : GradScores<M, 1>;
      scores(run.q_rows + static_cast<int64_t>(query + row) * run.size.steps, keys, run.size.steps,
             run.block.scores + static_cast<int64_t>(row) * kGradStride + k);
    }
  }
  const V vscale = Splat(run.scaling.scale), inverse = Splat(f.softcap > 0 ? 1.0f / f.softcap : 0.0f);
  for (int t = 0; t < kGradTiles; ++t) {
    if (!shape.general[t]) continue;
    const int n = shape.end[t] - shape.begin[t];
    for (int row = t * kGradRows; row < (t + 1) * kGradRows; ++row) {
      const int64_t at = static_cast<int64_t>(row) * kGradStride + shape.begin[t];
      if (run.block.slope) {
        for (int j = 0; j < n; j += kLanes) {
          const V u = Tanh(Mul(Mul(Load(run.block.scores + at + j), vscale), inverse));
          Store(run.block.slope + at + j, Sub(Splat(1.0f), Mul(u, u)));
        }
      }
      const Row& info = run.info[query + row];
      const int64_t first = run.first_key + key + shape.begin[t];
      FinishScores(f, run.s, info, first, n, run.scaling.scale, run.scaling.transform, run.block.scores + at);
      if (run.block.factor) DropFactors(f, run.s, info, first, n, run.block.factor + at);
    }
  }
}

// What the tiles of a block pair, queries [query, + 128) and keys [key, + 128) of those packed, have to compute. False:
// nothing, no query sees a key.
template <class M>
static bool ShapeOf(const BackwardRun<M>& run, int query, int key, BlockShape& shape) {
  const bool plain = !run.scaling.transform && !run.f.masks && !run.block.factor && Finite(run);
  const int64_t start = run.first_key + key;
  const int64_t last = Min(RoundUp(run.keys - key, kPanelKeys), kGradBlock);
  bool any = false;
  for (int panel = 0; panel < kGradPanels; ++panel) {
    shape.first[panel] = kGradTiles;
    shape.last[panel] = 0;
  }
  for (int group = 0; group < kGradTiles; ++group) {
    shape.group_first[group] = kGradTiles;
    shape.group_last[group] = 0;
  }
  int whole_first = kGradTiles, whole_last = 0;  // tiles that see every key
  for (int t = 0; t < kGradTiles; ++t) {
    const typename BackwardRun<M>::Tile& tile = run.tiles[query / kGradRows + t];
    const int begin = static_cast<int>(Min(Max(tile.lo - start, 0), last)) / kPanelKeys * kPanelKeys;
    const int end = RoundUp(Max(Min(tile.hi - start, last), 0), kLanes);
    shape.begin[t] = begin < end ? begin : 0;
    shape.end[t] = begin < end ? end : 0;
    shape.general[t] = begin < end && (!plain || start + begin < tile.all_lo || start + end > tile.all_hi);
    for (int k = begin; k < end; k += kPanelKeys) {
      const int panel = k / kPanelKeys;
      if (shape.last[panel] == 0) shape.first[panel] = t;
      shape.last[panel] = t + 1;
      any = true;
    }
    shape.key_begin[t] = shape.key_end[t] = 0;
    if (begin >= end) continue;
    shape.key_begin[t] = static_cast<int>(Max(tile.lo - start, 0)) / M::kPack * M::kPack;
    shape.key_end[t] = static_cast<int>(RoundUp(Min(tile.hi - start, last), M::kPack));
    if (shape.key_begin[t] == 0 && shape.key_end[t] == kGradBlock) {
      whole_first = static_cast<int>(Min(whole_first, t));
      whole_last = t + 1;
      continue;
    }
    for (int group = shape.key_begin[t] / kGradRows; group * kGradRows < shape.key_end[t]; ++group) {
      shape.group_first[group] = static_cast<int>(Min(shape.group_first[group], t));
      shape.group_last[group] = t + 1;
    }
  }
  for (int group = 0; group < kGradTiles; ++group) {
    shape.group_first[group] = static_cast<int>(Min(shape.group_first[group], whole_first));
    shape.group_last[group] = static_cast<int>(Max(shape.group_last[group], whole_last));
  }
  return any;
}

// P and dS of a block pair whose scores are final.
template <class M>
static void ProbabilityBlock(BackwardRun<M>& run, int query, int key, const BlockShape& shape) {
  const GradBlock& block = run.block;
  for (int panel = 0; panel < kGradPanels; ++panel) {
    const int k = panel * kPanelKeys;
    const float* keys = run.v_panels + static_cast<int64_t>(key + k) * RoundUp(run.size.steps_v, kLanes);
    for (int t = shape.first[panel]; t < shape.last[panel]; ++t) {
      const int row = t * kGradRows;
      if (k < shape.begin[t] || k >= shape.end[t]) {  // a gap between tiles that see the panel
        for (int r = row / M::kPack; r < (row + kGradRows) / M::kPack; ++r) {
          memset(block.row_p + r * kGradStride + k, 0, sizeof(float) * kPanelKeys);
          memset(block.row_ds + r * kGradStride + k, 0, sizeof(float) * kPanelKeys);
        }
        continue;
      }
      const float* dout = run.do_rows + static_cast<int64_t>(query + row) * run.size.steps_v;
      const bool whole = shape.end[t] - k > kLanes;
      const auto gradients = shape.general[t] ? whole ? GradProbabilities<M, true, 2> : GradProbabilities<M, true, 1>
                                              : whole ? GradProbabilities<M, false, 2> : GradProbabilities<M, false, 1>;
      gradients(dout, keys, run.size.steps_v, run.scaling.exponent, run.lse + query + row, run.delta + query + row,
                row, k, block);
    }
  }
}

// All five products of a block pair.
template <class M>
static void RunGradBlock(BackwardRun<M>& run, int query, int key) {
  BlockShape shape;
  if (!ShapeOf(run, query, key, shape)) return;
  ScoreBlock(run, query, key, shape);
  run.clock.Lap(kTicksScores);
  ProbabilityBlock(run, query, key, shape);
  run.clock.Lap(kTicksSoftmax);

  const GradBlock& block = run.block;
  const bool finite = Finite(run);
  // dQ: rows of queries, chains over keys.
  const int64_t key_panel = static_cast<int64_t>(kGradKeys) / M::kPack * kPanelKeys;
  for (int c = 0; c < run.size.columns; c += kPanelKeys) {
    const float* columns = run.k_columns + c / kPanelKeys * key_panel + key / M::kPack * kPanelKeys;
    for (int t = 0; t < kGradTiles; ++t) {
      typename BackwardRun<M>::Tile& tile = run.tiles[query / kGradRows + t];
      const int begin = shape.key_begin[t] / M::kPack, steps = (shape.key_end[t] - shape.key_begin[t]) / M::kPack;
      if (steps == 0) continue;
      constexpr int kStride = M::kPack == 1 ? kGradStride : kKeyStride<M>;
      GradRowsTile<M, kStride, 1>(finite, block.ds + static_cast<int64_t>(t * kGradRows) * kStride + begin,
                                  columns + begin * kPanelKeys, steps, !tile.touched,
                                  run.dq + static_cast<int64_t>(query + t * kGradRows) * run.size.columns + c,
                                  run.size.columns);
      if (c + kPanelKeys >= run.size.columns) tile.touched = true;
    }
  }
  // dV and dK: rows of keys, chains over queries.
  const int64_t query_panel = static_cast<int64_t>(kGradQueries) / M::kPack * kPanelKeys;
  uint8_t* const touched = run.touched + (run.first_key + key) / kPanelKeys;
  const auto keys_product = [&](const float* weights, const float* panels, int columns, float* sums) {
    for (int c = 0; c < columns; c += kPanelKeys) {
      const float* from = panels + c / kPanelKeys * query_panel + query / M::kPack * kPanelKeys;
      for (int k = 0; k < kGradBlock; k += kGradRows) {
        const int panel = k / kPanelKeys, begin = shape.group_first[k / kGradRows] * kGradRows / M::kPack;
        const int steps = shape.group_last[k / kGradRows] * kGradRows / M::kPack - begin;
        float* const to = sums + (run.first_key + key + k) * columns + c;
        const bool fresh = touched[panel] == 0;
        if (steps > 0) {
          GradRowsTile<M, 1, kGradStride>(finite, weights + static_cast<int64_t>(begin) * kGradStride + k,
                                          from + begin * kPanelKeys, steps, fresh, to, columns);
        } else if (fresh && shape.last[panel] > 0) {  // others of the panel have met a query
          for (int r = 0; r < kGradRows; ++r) memset(to + r * columns, 0, sizeof(float) * kPanelKeys);
        }
      }
    }
  };
  keys_product(block.row_p, run.do_columns, run.size.columns_v, run.dv);
  keys_product(block.row_ds, run.q_columns, run.size.columns, run.dk);
  for (int panel = 0; panel < kGradPanels; ++panel) {
    if (shape.last[panel] > 0) touched[panel] = 1;
  }
  run.clock.Lap(kTicksValues);
}

}  // namespace regard::cpu::REGARD_ISA
