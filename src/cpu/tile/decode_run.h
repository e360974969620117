// A decode task at work: its scratch, its rows and their queries, the state that blocks advance.
#pragma once

#include "src/cpu/tile/direct.h"
#include "src/cpu/tile/prefill.h"

namespace regard::cpu::REGARD_ISA {

template <class M>
struct DecodeScratch {
  // Floats of each part; D = 128, bf16, 32 query heads, AVX-512: q 8 KiB, panel 10 + 16 KiB in L1, scores 256 KiB,
  // o 2 x 64.
  int qk_steps, o_floats;
  int64_t q, panel, values, scores, clean, o, total;
  DecodeScratch(int qk_dim_steps, int head_dim_v) {
    qk_steps = qk_dim_steps;
    o_floats = RoundUp(head_dim_v, kPanelKeys);
    q = RoundUp(static_cast<int64_t>(kDecodeRows) * qk_steps + kLanes, 16);
    panel = Max(static_cast<int64_t>(RoundUp(qk_steps, kLanes) + kLanes) * kPanelKeys, 2 * KeyStage::kFloats);
    values = static_cast<int64_t>(kPanelKeys) / M::kPack * o_floats;
    scores = static_cast<int64_t>(kDecodeRows) * kScoreStride;
    clean = static_cast<int64_t>(kPanelKeys) / M::kPack * kPanelKeys;
    o = static_cast<int64_t>(kDecodeRows) * o_floats;
    total = q + panel + values + scores + clean + 2 * o + 4 * kDecodeRows;
  }
};

// A decode task at work. Rows are numbered (kv head of the task, position, head in group).
template <class M>
struct DecodeRun {
  const ForwardParams& p;
  const Task& task;
  const Seq& s;
  DecodeScratch<M> size;
  float *q, *panel, *values, *scores, *clean, *o, *m, *l;
  struct {
    float *o, *m, *l;
  } before;                      // the state before the block at hand
  int64_t ov;                    // floats between rows of o
  int heads, group_rows, rows;
  Row info[kDecodeRows];
  Scaling scaling[kDecodeRows];  // by kv head
  int64_t lo, hi;                // keys that some row sees
  bool finish_scores;            // every block needs FinishScores
  int panels_ahead;              // of Ahead: prefetch_panels, and as many at least as a head's values are read at once
  Block block, next;             // at hand, and after it (of a task to come, where this one ends before)
  BlockOffsets offsets[2];       // theirs, turn about
  int turn;                      // which is `block`'s
  PhaseClock clock;

  DecodeRun(const ForwardParams& params, const Task& t)
      : p(params),
        task(t),
        s(params.seqs[t.b]),
        size(QkSteps<M>(params), params.head_dim_v),
        clock(params.phase_ticks) {}
};

template <class M>
static void PrepareDecode(DecodeRun<M>& run, float* scratch) {
  const ForwardParams& p = run.p;
  const DecodeScratch<M>& size = run.size;
  run.q = scratch;
  run.panel = run.q + size.q;
  run.values = run.panel + size.panel;
  run.scores = run.values + size.values;
  run.clean = run.scores + size.scores;
  run.o = run.clean + size.clean;
  run.before.o = run.o + size.o;
  run.m = run.before.o + size.o;
  run.l = run.m + kDecodeRows;
  run.before.m = run.l + kDecodeRows;
  run.before.l = run.before.m + kDecodeRows;
  run.ov = size.o_floats;
  run.heads = run.task.head_end - run.task.head_begin;
  run.group_rows = static_cast<int>(p.group * run.s.seq_q);
  run.rows = run.heads * run.group_rows;
  run.lo = INT64_MAX;
  run.hi = 0;
  run.finish_scores = p.masks;
  WithElem(p.kv_type, [&](auto t) {
    constexpr int kAtOnce = kValuePanels<M, decltype(t)::value>;
    run.panels_ahead = p.prefetch_panels == 0 ? 0 : static_cast<int>(Max(p.prefetch_panels, kAtOnce));
  });
  float query_scale = 1.0f;  // q as the score product wants it
  int query_rows = kTileRows;
  if (run.group_rows <= kDirectRows) {
    WithElem(p.kv_type, [&](auto t) {
      query_scale = KeyUnit<M, decltype(t)::value>::kQueryScale;
      query_rows = kScoreRows<M, decltype(t)::value>;
    });
  }
  for (int64_t i = 0; i < run.s.seq_q; ++i) {
    const Range range = VisibleRange(p, run.s, i);
    if (range.begin < range.end) {
      run.lo = Min(run.lo, range.begin);
      run.hi = Max(run.hi, range.end);
    }
    for (int n = 0; n < run.heads; ++n) {
      for (int64_t g = 0; g < p.group; ++g) {
        run.info[n * run.group_rows + i * p.group + g] = {run.task.b, (run.task.head_begin + n) * p.group + g, i,
                                                          range.begin, range.end};
      }
    }
  }
  for (int r = 0; r < run.rows; ++r) {
    if (run.info[r].lo != run.lo || run.info[r].hi != run.hi) run.finish_scores = true;
  }
  for (int n = 0; n < run.heads; ++n) {
    run.scaling[n] = ScalingOf(p, run.task.b, run.task.head_begin + n);
    if (run.scaling[n].transform) run.finish_scores = true;
    for (int r = 0; r < run.group_rows; r += query_rows) {
      PackQueries<M>(p, run.s, run.task.b, run.task.head_begin + n, r,
                     static_cast<int>(Min(query_rows, run.group_rows - r)), query_scale,
                     query_scale * run.scaling[n].qv_factor,
                     run.q + static_cast<int64_t>(n * run.group_rows + r) * size.qk_steps);
    }
  }
}

template <class M>
static void EmptyState(DecodeRun<M>& run) {
  memset(run.o, 0, sizeof(float) * static_cast<size_t>(run.rows * run.ov));
  for (int r = 0; r < run.rows; ++r) {
    run.m[r] = kMinusInf;
    run.l[r] = 0.0f;
  }
}

}  // namespace regard::cpu::REGARD_ISA
