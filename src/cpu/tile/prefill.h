// Prefill: FlashAttention-2, algorithm 1, on a CPU. A task is up to kTaskRows query rows (positions x heads of the
// group) of one kv head. Each block of keys is packed once, for its rows or for all tasks of the head (kept.h); row tiles
// then run scores -> softmax -> PV. Invariant: after block t, a row's (split state) is the exact softmax over its visible
// keys from the split's start to the end of t; splits fold left to right. Rows of a task never mix, so what else is in it
// changes no bit.
#pragma once

#include "src/cpu/tile/kept.h"
#include "src/cpu/tile/mods.h"
#include "src/cpu/tile/pack.h"
#include "src/cpu/tile/products.h"
#include "src/cpu/tile/softmax.h"

namespace regard::cpu::REGARD_ISA {

inline constexpr int kTaskTiles = (kTaskRows + kTileRows - 1) / kTileRows;

template <class M>
struct PrefillScratch {
  // Floats of each part; D = 128, f32, AVX-512: q 288 KiB + K 256 + V 256 + scores 26 + states 2 x 288 + clean 64
  // = 1466.
  int qk_steps, o_floats, panel_floats;
  int64_t q, keys, values, scores, clean, o, total;
  PrefillScratch(int qk_dim_steps, int head_dim_v) {
    qk_steps = qk_dim_steps;
    panel_floats = RoundUp(qk_steps, kLanes) * kPanelKeys;  // of keys: whole vectors of steps
    o_floats = RoundUp(head_dim_v, kPanelKeys);
    q = RoundUp(static_cast<int64_t>(kTaskRows) * qk_steps + kLanes, 16);
    // With qv a panel may spill part of a vector into the next, the last into `values`; both are written later.
    keys = static_cast<int64_t>(kBlockTokens / kPanelKeys) * panel_floats;
    values = static_cast<int64_t>(kBlockTokens) / M::kPack * o_floats;
    scores = static_cast<int64_t>(kTileRows) * kScoreStride;
    clean = static_cast<int64_t>(kPanelKeys) / M::kPack * kPanelKeys;
    o = static_cast<int64_t>(kTaskRows) * o_floats;
    total = q + keys + values + scores + clean + 2 * o + 4 * (kTaskRows + kLanes);
  }
};

template <class M>
static int QkSteps(const ForwardParams& p) {
  return Steps<M>(p.head_dim) + Steps<M>(p.qv_dim);
}

// One query tile: rows [row, row + rows) of (sequence, kv head), numbered position * group + head in group.
template <class M>
static void PackQueries(const ForwardParams& p, const Seq& s, int64_t b, int64_t head_kv, int64_t row, int rows,
                        float q_factor, float qv_factor, float* dst) {
  const char *q[kTileRows], *qv[kTileRows];
  int64_t i = row / p.group, g = row % p.group;
  for (int r = 0; r < rows; ++r) {
    const int64_t at = p.varlen ? s.q_row + i : i, batch = p.varlen ? 0 : b, h = head_kv * p.group + g;
    q[r] = p.q + batch * p.q_stride_b + at * p.q_stride_s + h * p.q_stride_h;
    if (p.qv_dim > 0) qv[r] = p.qv + batch * p.qv_stride_b + at * p.qv_stride_s + h * p.qv_stride_h;
    if (++g == p.group) g = 0, ++i;
  }
  PackQueryRows<M>(p.q_type, q, rows, p.head_dim, q_factor, dst);
  if (p.qv_dim > 0) {
    PackQueryRows<M>(p.q_type, qv, rows, p.qv_dim, qv_factor, dst + static_cast<int64_t>(Steps<M>(p.head_dim)) * rows);
  }
}

// K panel of keys whose offsets are given; with qv, v follows k on the chain.
template <class M, class Stream>
static void PackPanel(const ForwardParams& p, int64_t head_kv, const int64_t* k_offsets, const int64_t* v_offsets,
                      int n, Stream& stream, float* dst) {
  PackKeys<M>(p.kv_type, p.k.data + head_kv * p.k.head_stride, k_offsets, n, p.head_dim, stream, dst);
  if (p.qv_dim > 0) {
    PackKeys<M>(p.kv_type, p.v.data + head_kv * p.v.head_stride, v_offsets, n, p.qv_dim, stream,
                dst + Steps<M>(p.head_dim) * kPanelKeys);
  }
}

// A prefill task at work.
template <class M>
struct PrefillRun {
  const ForwardParams& p;
  const Task& task;
  const Seq& s;
  const PrefillScratch<M> size;
  const Scaling scaling;
  int64_t head_kv;
  int rows;
  float *q, *own, *scores, *clean;
  float *keys, *values;     // of the block at hand: `own`, or what the head's tasks share
  // States of all rows: of the splits before, and of the split at hand. The first split that a tile meets is written
  // straight into `before`: folding it into nothing would change no bit.
  struct States {
    float *o, *m, *l;
  } before, split;
  int64_t ov;               // floats between rows of o
  Row info[kTaskRows];
  // By row tile: keys [lo, hi) that some row sees, and the widest [all_lo, all_hi) that every row sees.
  struct Tile {
    int64_t lo, hi, all_lo, all_hi;
    bool started;             // some block has been met
    bool has_before;          // `before` is complete for the splits before
    bool in_split;            // `split` holds blocks of this split
    bool finished;            // written out
  } tiles[kTaskTiles];
  int64_t lo, hi;           // keys that some row sees
  int64_t owner;            // of the slot that it works in; 0: none, its head has no other task
  Range all;                // keys that some row of the sequence sees, where it shares
  bool plain;               // scores need no FinishScores inside [all_lo, all_hi)
  BlockOffsets offsets[2];  // of the block at hand and the next, turn about
  int turn;                 // which is at hand
  bool finite;              // no NaN or infinity among the values of the block at hand
  struct {
    int key, end;           // of the next block, still to be fetched
    int from_tile, keys_a_turn;
  } fetch;
  PhaseClock clock;

  PrefillRun(const ForwardParams& params, const Task& t)
      : p(params), task(t), s(params.seqs[t.b]), size(QkSteps<M>(params), params.head_dim_v),
        scaling(ScalingOf(params, t.b, t.head_begin)), clock(params.phase_ticks) {}
};

template <class M>
static void PreparePrefill(PrefillRun<M>& run, float* scratch) {
  const ForwardParams& p = run.p;
  const PrefillScratch<M>& size = run.size;
  run.head_kv = run.task.head_begin;
  run.rows = static_cast<int>(run.task.end - run.task.begin);
  run.q = scratch;
  run.own = run.q + size.q;
  run.scores = run.own + size.keys + size.values;
  run.clean = run.scores + size.scores;
  run.before.o = run.clean + size.clean;
  run.split.o = run.before.o + size.o;
  run.before.m = run.split.o + size.o;
  run.before.l = run.before.m + kTaskRows + kLanes;
  run.split.m = run.before.l + kTaskRows + kLanes;
  run.split.l = run.split.m + kTaskRows + kLanes;
  run.ov = size.o_floats;
  run.plain = !run.scaling.transform && !p.masks;
  run.lo = INT64_MAX;
  run.hi = 0;

  int64_t i = run.task.begin / p.group, g = run.task.begin % p.group;
  Range range = VisibleRange(p, run.s, i);
  for (int r = 0; r < run.rows; ++r) {
    run.info[r] = {run.task.b, run.head_kv * p.group + g, i, range.begin, range.end};
    run.before.m[r] = run.split.m[r] = kMinusInf;
    run.before.l[r] = run.split.l[r] = 0.0f;
    if (++g < p.group) continue;
    g = 0;
    ++i;
    if (r + 1 < run.rows) range = VisibleRange(p, run.s, i);
  }
  for (int t = 0, n = 0; t < run.rows; t += kTileRows, ++n) {
    typename PrefillRun<M>::Tile& tile = run.tiles[n];
    tile = {INT64_MAX, 0, 0, INT64_MAX, false, false, false, false};
    for (int r = t; r < Min(t + kTileRows, run.rows); ++r) {
      tile.all_lo = Max(tile.all_lo, run.info[r].lo);
      tile.all_hi = Min(tile.all_hi, run.info[r].hi);
      if (run.info[r].lo >= run.info[r].hi) continue;
      tile.lo = Min(tile.lo, run.info[r].lo);
      tile.hi = Max(tile.hi, run.info[r].hi);
    }
    run.lo = Min(run.lo, tile.lo);
    run.hi = Max(run.hi, tile.hi);
  }
}

// Row tile `n` meets its first keys: its q is packed, and that of the next tile fetched meanwhile.
template <class M, int R>
static void StartTile(PrefillRun<M>& run, int n) {
  const ForwardParams& p = run.p;
  const int t = n * kTileRows;
  run.tiles[n].started = true;
  PackQueries<M>(p, run.s, run.task.b, run.head_kv, run.task.begin + t, R, 1.0f, run.scaling.qv_factor,
                 run.q + static_cast<int64_t>(t) * run.size.qk_steps);
  const int64_t batch = p.varlen ? 0 : run.task.b, first = p.varlen ? run.s.q_row : 0;
  for (int r = t + kTileRows; r < Min(t + 2 * kTileRows, run.rows); ++r) {
    const char* at = p.q + batch * p.q_stride_b + (first + run.info[r].i) * p.q_stride_s + run.info[r].h * p.q_stride_h;
    FetchRow(at, p.head_dim * BytesOf(p.q_type));
  }
}

// Row tile `n` has met the last keys that it sees of a split: the split's states join those of the splits before; after
// its last split its rows are written out.
template <class M, int R>
static void EndTile(PrefillRun<M>& run, int n, bool last) {
  typename PrefillRun<M>::Tile& tile = run.tiles[n];
  const int t = n * kTileRows;
  for (int r = t; r < t + R && tile.in_split; ++r) {
    FoldState(run.before.o + r * run.ov, &run.before.m[r], &run.before.l[r], run.split.o + r * run.ov, run.split.m[r],
              run.split.l[r], run.scaling.exponent, run.ov);
    run.split.m[r] = kMinusInf;
    run.split.l[r] = 0.0f;
  }
  tile.has_before = true;
  tile.in_split = false;
  if (!last) return;
  tile.finished = true;
  for (int r = t; r < t + R; ++r) {
    FinishRow(run.p, run.s, run.scaling, run.task.b, run.info[r].h, run.info[r].i, run.before.o + r * run.ov,
              run.before.m[r], run.before.l[r]);
  }
}

// The lines of keys [begin, last) of a block, to be fetched one by one.
template <class M>
static LineStream LinesOf(const PrefillRun<M>& run, const KvView& view, const int64_t* offsets, int begin, int last,
                          int dim) {
  return StreamOf(view.data + run.head_kv * view.head_stride, offsets + begin, static_cast<int>(Max(last - begin, 0)),
                  1, view.head_stride, dim * BytesOf(run.p.kv_type));
}

template <class M>
static void PackBlock(PrefillRun<M>& run, const Block& block, const BlockOffsets& offsets) {
  const ForwardParams& p = run.p;
  const int first = block.first, last = block.last;
  // Packing reads one panel behind what it fetches.
  LineStream k_ahead = LinesOf(run, p.k, offsets.k, first + kPanelKeys, last, p.head_dim);
  LineStream v_ahead = LinesOf(run, p.v, offsets.v, first + kPanelKeys, last, p.head_dim_v);
  for (int k = first; k < last; k += kPanelKeys) {
    PackPanel<M>(p, run.head_kv, offsets.k + k, offsets.v + k, static_cast<int>(Min(kPanelKeys, last - k)), k_ahead,
                 run.keys + static_cast<int64_t>(k / kPanelKeys) * run.size.panel_floats);
  }
  const int64_t panel_floats = static_cast<int64_t>(kBlockTokens) / M::kPack * kPanelKeys;
  const V finite = PackValues<M>(p.kv_type, p.v.data + run.head_kv * p.v.head_stride, offsets.v + first, last - first,
                                 p.head_dim_v, panel_floats, v_ahead, run.values + first / M::kPack * kPanelKeys);
  run.finite = ReduceAdd(finite) == 0.0f;
  // Rows past the last key, up to the panel's end, meet weights of 0.
  for (int c = 0; c < run.size.o_floats / kPanelKeys; ++c) {
    const int end = RoundUp(last, kPanelKeys) / M::kPack, at = (last + M::kPack - 1) / M::kPack;
    memset(run.values + c * panel_floats + at * kPanelKeys, 0,
           sizeof(float) * static_cast<size_t>((end - at) * kPanelKeys));
  }
}

// The shared block from key `start` on; state null: it is not shared.
template <class M>
static KeptBlock KeptOf(const PrefillRun<M>& run, int64_t start) {
  const KeptPanels& kept = run.p.kept;
  const int64_t block = start / run.p.block_tokens;
  return run.owner > 0 && block < kept.blocks ? KeptBlockAt(kept, run.owner, block) : KeptBlock{};
}

// The block from key `start` on, and where its keys lie. One that is shared is packed for all rows of the sequence.
template <class M>
static Block NextBlock(const PrefillRun<M>& run, int64_t start, BlockOffsets& offsets) {
  const bool whole = start < run.hi && KeptOf(run, start).state;
  return BlockAt(run.p, run.s, whole ? run.all.begin : run.lo, whole ? run.all.end : run.hi, start, offsets);
}

// The panels of the block at hand: those that lie ready, or packed now.
template <class M>
static void ProvideBlock(PrefillRun<M>& run, const Block& block, const BlockOffsets& offsets) {
  const int64_t owner = run.owner;
  const KeptBlock kept = KeptOf(run, block.start);
  const BlockState state = kept.state ? StateOf(kept, owner) : kBeingPacked;
  const bool ready = state >= kPackedFinite;
  const bool packs = state == kEmpty && StartPacking(kept, owner);
  run.keys = ready || packs ? kept.panels : run.own;
  run.values = run.keys + run.size.keys;
  if (ready) {
    run.finite = state == kPackedFinite;
  } else {
    PackBlock(run, block, offsets);
  }
  if (packs) DonePacking(kept, owner, run.finite);
  run.clock.Lap(kTicksPack);
}

// Sets the pace at which the tiles of the block at hand fetch the next one into L2, unless its panels lie ready, which
// the hardware's own prefetcher follows: the later half of them, or it would be gone again before it is packed.
template <class M>
static void StartFetch(PrefillRun<M>& run, const Block& block, const Block& next) {
  const int tiles = (run.rows + kTileRows - 1) / kTileRows;
  const int turns = (tiles - tiles / 2) * ((block.last - block.first + kPanelKeys - 1) / kPanelKeys);
  const KeptBlock kept = KeptOf(run, next.start);
  const bool ready = kept.state && StateOf(kept, run.owner) >= kPackedFinite;
  run.fetch = {next.first, ready ? next.first : next.last, tiles / 2, (next.last - next.first + turns - 1) / turns};
}

template <class M>
REGARD_INLINE void FetchAhead(PrefillRun<M>& run, const BlockOffsets& offsets) {
  const ForwardParams& p = run.p;
  const int size = BytesOf(p.kv_type);
  const char* const k = p.k.data + run.head_kv * p.k.head_stride;
  const char* const v = p.v.data + run.head_kv * p.v.head_stride;
  const int end = static_cast<int>(Min(run.fetch.key + run.fetch.keys_a_turn, run.fetch.end));
  for (; run.fetch.key < end; ++run.fetch.key) {
    FetchRow(k + offsets.k[run.fetch.key], p.head_dim * size);
    FetchRow(v + offsets.v[run.fetch.key], p.head_dim_v * size);
  }
}

// Row tile `n`, R rows from row t on, over one block.
template <class M, int R>
static void RunTile(PrefillRun<M>& run, int n, const Block& block) {
  const ForwardParams& p = run.p;
  typename PrefillRun<M>::Tile& tile = run.tiles[n];
  const int t = n * kTileRows;
  const int begin = static_cast<int>(Min(Max(tile.lo - block.start, 0), p.block_tokens)) / kPanelKeys * kPanelKeys;
  const int end = RoundUp(static_cast<int>(Max(Min(tile.hi - block.start, block.last), 0)), kPanelKeys);
  if (begin >= end) return;
  const bool fresh = tile.has_before ? !tile.in_split : !tile.started;
  if (!tile.started) StartTile<M, R>(run, n);
  run.clock.Lap(kTicksPack);
  NoStream none;
  const float* q = run.q + static_cast<int64_t>(t) * run.size.qk_steps;
  for (int k = begin; k < end; k += kPanelKeys) {
    ScoreTile<M, R>(q, run.keys + static_cast<int64_t>(k / kPanelKeys) * run.size.panel_floats, run.size.qk_steps,
                    run.scores + k, none);
    if (n >= run.fetch.from_tile) FetchAhead(run, run.offsets[run.turn ^ 1]);
  }
  typename PrefillRun<M>::States& state = tile.has_before ? run.split : run.before;
  float* const o = state.o + t * run.ov;
  if (!fresh) {
    for (int c = 0; c < R * run.ov; c += 16) PrefetchNear(o + c);
  }
  run.clock.Lap(kTicksScores);

  if (!run.plain || block.start + begin < tile.all_lo || block.start + end > tile.all_hi) {
    for (int r = 0; r < R; ++r) {
      FinishScores(p, run.s, run.info[t + r], block.start + begin, end - begin, run.scaling.scale,
                   run.scaling.transform, run.scores + r * kScoreStride + begin);
    }
  }
  tile.in_split = tile.has_before;
  alignas(64) float alpha[kMaxTileRows];
  const auto softmax = [&](const auto& drop) {
    return run.finite ? SoftmaxRows<M, false>(run.scores, R, begin, end, run.scaling.exponent, state.m + t, state.l + t,
                                              alpha, drop)
                      : SoftmaxRows<M, true>(run.scores, R, begin, end, run.scaling.exponent, state.m + t, state.l + t,
                                             alpha, drop);
  };
  const bool rescale = p.drops ? softmax(DropSome{p, run.s, run.info + t, block.start}) : softmax(KeepAll{});
  const Start start = fresh ? Start::kEmpty : rescale ? Start::kRescale : Start::kKeep;
  run.clock.Lap(kTicksSoftmax);

  // Of the panels, the keys that some row sees.
  const int v_begin = static_cast<int>(Max(tile.lo - block.start, begin)) / M::kPack;
  const int v_end = (static_cast<int>(Min(tile.hi - block.start, block.last)) + M::kPack - 1) / M::kPack;
  const float* probs = run.scores + v_begin;
  const float* v = run.values + v_begin * kPanelKeys;
  const int64_t panel_floats = static_cast<int64_t>(kBlockTokens) / M::kPack * kPanelKeys;
  const int steps = v_end - v_begin;
  if (run.finite) {
    AccumulateValues<M, R>(probs, v, panel_floats, steps, p.head_dim_v, start, alpha, o, run.ov, none);
  } else {
    for (int r = 0; r < R; ++r) {
      AccumulateVisibleValues<M>(probs + r * kScoreStride, v, panel_floats, steps, p.head_dim_v, start, alpha + r,
                                 o + r * run.ov, run.clean);
    }
  }
  run.clock.Lap(kTicksValues);
  const bool last = block.start + block.last >= tile.hi;
  if (last || block.ends_split) EndTile<M, R>(run, n, last);
  run.clock.Lap(kTicksMerge);
}

template <class M>
static void RunPrefill(const ForwardParams& p, const Task& task, float* scratch) {
  PrefillRun<M> run(p, task);
  PreparePrefill(run, scratch);
  run.turn = 0;
  const int64_t start = run.lo < run.hi ? run.lo / p.block_tokens * p.block_tokens : run.hi;
  run.owner = run.lo < run.hi && run.rows < run.s.seq_q * p.group ? 1 + task.b * p.heads_kv + run.head_kv : 0;
  if (!JoinSlot(p.kept, run.owner)) run.owner = 0;
  if (run.owner > 0) run.all = {VisibleRange(p, run.s, 0).begin, VisibleRange(p, run.s, run.s.seq_q - 1).end};
  Block next = NextBlock(run, start, run.offsets[0]);
  for (; next.first < next.last; run.turn ^= 1) {
    const Block block = next;
    run.clock.Lap(kTicksOther);
    ProvideBlock(run, block, run.offsets[run.turn]);
    next = NextBlock(run, block.start + p.block_tokens, run.offsets[run.turn ^ 1]);
    StartFetch(run, block, next);
    for (int t = 0, n = 0; t < run.rows; t += kTileRows, ++n) {
      WithRows<kTileRows>(static_cast<int>(Min(kTileRows, run.rows - t)),
                          [&](auto count) { RunTile<M, decltype(count)::value>(run, n, block); });
    }
  }
  if (run.owner > 0) LeaveSlot(p.kept, run.owner);
  for (int t = 0, n = 0; t < run.rows; t += kTileRows, ++n) {  // rows that see no key
    if (run.tiles[n].finished) continue;
    WithRows<kTileRows>(static_cast<int>(Min(kTileRows, run.rows - t)),
                        [&](auto count) { EndTile<M, decltype(count)::value>(run, n, true); });
  }
  run.clock.Lap(kTicksOther);
}

}  // namespace regard::cpu::REGARD_ISA
