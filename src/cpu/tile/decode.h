// Decode: few query rows, all kv heads together, so that memory is read in whole token rows and each key once.
// A panel of keys meets the very chains of prefill head by head: straight from the cache for up to kDirectRows rows of
// a group, packed into L1 above; scores of a whole block are kept (rows x kBlockTokens), so that the maximum advances
// as in prefill. Splits run as tasks of their own; their states meet in Combine. Bits are those of prefill, whatever
// the split of tasks, heads or panels.
#pragma once

#include "src/cpu/tile/decode_run.h"

namespace regard::cpu::REGARD_ISA {

// What is fetched, for all heads, while the panel of keys [k, k + kPanelKeys) is at hand: the one panels_ahead later in
// the order of reading, K of the block, then its V, then K of the next block. Nothing where that is further.
template <class M>
static PanelStream Ahead(const DecodeRun<M>& run, bool values, int k) {
  const ForwardParams& p = run.p;
  const Block* block = &run.block;
  const BlockOffsets* offsets = &run.offsets[run.turn];
  bool further = run.panels_ahead == 0;
  k += run.panels_ahead * kPanelKeys;
  while (!further && k >= block->last) {
    k -= RoundUp(block->last, kPanelKeys);
    further = block == &run.next;
    if (values) {
      block = &run.next;
      offsets = &run.offsets[run.turn ^ 1];
    }
    values = !values;
    k += block->first;
  }
  const KvView& view = values ? p.v : p.k;
  const int keys = further ? 0 : static_cast<int>(Min(block->last - k, kPanelKeys));
  return PanelStreamOf(StreamOf(view.data + run.task.head_begin * view.head_stride,
                                (values ? offsets->v : offsets->k) + k, keys, run.heads, view.head_stride,
                                (values ? p.head_dim_v : p.head_dim) * BytesOf(p.kv_type)));
}

// `keys` rows of kv head `n` of the task from key k of the block on.
template <class M>
static PanelRows PanelOf(const DecodeRun<M>& run, int n, int k, int keys) {
  const ForwardParams& p = run.p;
  const int64_t head = run.task.head_begin + n;
  return {p.k.data + head * p.k.head_stride,
          p.v.data + head * p.v.head_stride,
          run.offsets[run.turn].k + k,
          run.offsets[run.turn].v + k,
          keys,
          p.head_dim,
          p.qv_dim};
}

// Raw scores of keys [first, last) of a block.
template <class M, Elem T>
static void ScoreBlock(DecodeRun<M>& run, int first, int last) {
  const ForwardParams& p = run.p;
  KeyStage stage{run.panel, 0, false, false};
  const int step = run.group_rows <= kDirectRows ? kScoreKeys<M, T> : kPanelKeys;
  PanelStream ahead;
  for (int k = first; k < last; k += step) {
    if ((k - first) % kPanelKeys == 0) ahead = Ahead(run, false, k);
    for (int n = 0; n < run.heads; ++n) {
      const int row = n * run.group_rows;
      const float* q = run.q + static_cast<int64_t>(row) * run.size.qk_steps;
      float* x = run.scores + static_cast<int64_t>(row) * kScoreStride + k;
      const PanelRows rows = PanelOf(run, n, k, static_cast<int>(Min(step, last - k)));
      if (run.group_rows <= kDirectRows) {
        const bool last_head = n + 1 == run.heads;
        const PanelRows following = last_head
                                        ? PanelOf(run, 0, k + step, static_cast<int>(Min(step, last - k - step)))
                                        : PanelOf(run, n + 1, k, rows.keys);
        for (int r = 0; r < run.group_rows; r += kScoreRows<M, T>) {
          const PanelRows* next = r + kScoreRows<M, T> < run.group_rows ? &rows : &following;
          if (next->keys < step) next = nullptr;
          WithRows<kScoreRows<M, T>>(static_cast<int>(Min(kScoreRows<M, T>, run.group_rows - r)), [&](auto count) {
            ScoreDirect<M, T, decltype(count)::value>(
                rows, next, stage, q + static_cast<int64_t>(r) * run.size.qk_steps, x + r * kScoreStride, ahead);
          });
        }
        continue;
      }
      PackPanel<M>(p, run.task.head_begin + n, rows.k_offsets, rows.v_offsets, rows.keys, ahead, run.panel);
      for (int r = 0; r < run.group_rows; r += kTileRows) {
        WithRows<kTileRows>(static_cast<int>(Min(kTileRows, run.group_rows - r)), [&](auto count) {
          ScoreTile<M, decltype(count)::value>(q + static_cast<int64_t>(r) * run.size.qk_steps, run.panel,
                                               run.size.qk_steps, x + static_cast<int64_t>(r) * kScoreStride, ahead);
        });
      }
    }
  }
}

// o += weights * values of keys [first, last) of a block, all values taken to be finite.
template <class M, Elem T>
static void ValueBlock(DecodeRun<M>& run, int first, int last) {
  const ForwardParams& p = run.p;
  constexpr int kKeys = ValueUnit<M, T>::kKeys;
  PanelStream ahead[kValuePanels<M, T>];
  for (int k = first; k < last; k += kKeys) {
    for (int i = 0; i < kValuePanels<M, T> && (k - first) % kPanelKeys == 0; ++i) {
      ahead[i] = Ahead(run, true, k + i * kPanelKeys);
    }
    const int keys = static_cast<int>(Min(kKeys, last - k));
    for (int n = 0; n < run.heads; ++n) {
      const char* base = p.v.data + (run.task.head_begin + n) * p.v.head_stride;
      const int64_t next_head = n + 1 < run.heads ? p.v.head_stride : 0;
      for (int r = 0; r < run.group_rows; r += kValueRows) {
        const int row = n * run.group_rows + r;
        const float* probs = run.scores + static_cast<int64_t>(row) * kScoreStride + k / M::kPack;
        WithRows<kValueRows>(static_cast<int>(Min(kValueRows, run.group_rows - r)), [&](auto count) {
          ValueDirect<M, T, decltype(count)::value>(base, next_head, run.offsets[run.turn].v + k, keys, p.head_dim_v,
                                                    probs, run.o + row * run.ov, run.ov, run.values, ahead);
        });
      }
    }
  }
}

// The same where some value is NaN or infinite: masked keys' values are taken out row by row.
template <class M>
static void VisibleValueBlock(DecodeRun<M>& run, int first, int last) {
  const ForwardParams& p = run.p;
  NoStream none;
  const int steps = kPanelKeys / M::kPack;
  const int64_t panel_floats = static_cast<int64_t>(steps) * kPanelKeys;
  for (int k = first; k < last; k += kPanelKeys) {
    const int keys = static_cast<int>(Min(kPanelKeys, last - k));
    for (int n = 0; n < run.heads; ++n) {
      memset(run.values, 0, sizeof(float) * static_cast<size_t>(run.size.values));
      PackValues<M>(p.kv_type, p.v.data + (run.task.head_begin + n) * p.v.head_stride, run.offsets[run.turn].v + k,
                    keys, p.head_dim_v, panel_floats, none, run.values);
      for (int r = n * run.group_rows; r < (n + 1) * run.group_rows; ++r) {
        AccumulateVisibleValues<M>(run.scores + static_cast<int64_t>(r) * kScoreStride + k / M::kPack, run.values,
                                   panel_floats, steps, p.head_dim_v, Start::kKeep, nullptr, run.o + r * run.ov,
                                   run.clean);
      }
    }
  }
}

// The columns of o into their natural order, or back into ValueBlock's.
template <class M>
static void ReorderColumns(DecodeRun<M>& run, bool to_natural) {
  WithElem(run.p.kv_type, [&](auto t) {
    for (int r = 0; r < run.rows; ++r) {
      ReorderColumns<M, decltype(t)::value>(run.o + r * run.ov, run.p.head_dim_v, to_natural);
    }
  });
}

// Raw scores to weights; m and l advance and o is brought to the new maxima.
template <class M, bool kMark>
static void SoftmaxRun(DecodeRun<M>& run, int64_t block, int first, int last) {
  const int end = RoundUp(last, kPanelKeys);
  const bool edges = run.finish_scores || block + first < run.lo || block + end > run.hi;
  alignas(64) float alpha[kMaxTileRows];
  for (int r = 0, rows; r < run.rows; r += rows) {
    const int left = run.group_rows - r % run.group_rows;  // rows of the same head
    rows = static_cast<int>(Min(left, kTileRows));
    const Scaling& c = run.scaling[r / run.group_rows];
    float* x = run.scores + static_cast<int64_t>(r) * kScoreStride;
    for (int i = 0; edges && i < rows; ++i) {
      FinishScores(run.p, run.s, run.info[r + i], block + first, end - first, c.scale, c.transform,
                   x + i * kScoreStride + first);
    }
    const auto softmax = [&](const auto& drop) {
      return SoftmaxRows<M, kMark>(x, rows, first, end, c.exponent, run.m + r, run.l + r, alpha, drop);
    };
    if (!(run.p.drops ? softmax(DropSome{run.p, run.s, run.info + r, block}) : softmax(KeepAll{}))) continue;
    for (int i = 0; i < rows; ++i) {
      if (alpha[i] != 1.0f) ScaleRow(run.o + (r + i) * run.ov, run.ov, alpha[i]);
    }
  }
}

template <class M>
static void RunBlock(DecodeRun<M>& run) {
  const ForwardParams& p = run.p;
  const int64_t block = run.block.start;
  const int first = run.block.first, last = run.block.last;
  const size_t o_bytes = sizeof(float) * static_cast<size_t>(run.rows * run.ov);
  const size_t row_bytes = sizeof(float) * static_cast<size_t>(run.rows);
  memcpy(run.before.o, run.o, o_bytes);
  memcpy(run.before.m, run.m, row_bytes);
  memcpy(run.before.l, run.l, row_bytes);
  WithElem(p.kv_type, [&](auto t) { ScoreBlock<M, decltype(t)::value>(run, first, last); });
  run.clock.Lap(kTicksScores);
  SoftmaxRun<M, false>(run, block, first, last);
  run.clock.Lap(kTicksSoftmax);
  WithElem(p.kv_type, [&](auto t) { ValueBlock<M, decltype(t)::value>(run, first, last); });
  V finite = Zero();
  for (int64_t c = 0; c < run.rows * run.ov; c += kLanes) finite = Fma(Load(run.o + c), Zero(), finite);
  run.clock.Lap(kTicksValues);
  if (ReduceAdd(finite) == 0.0f) return;

  // A non-finite value shows in o, whatever its weight: then the block is done again with care.
  memcpy(run.o, run.before.o, o_bytes);
  memcpy(run.m, run.before.m, row_bytes);
  memcpy(run.l, run.before.l, row_bytes);
  WithElem(p.kv_type, [&](auto t) { ScoreBlock<M, decltype(t)::value>(run, first, last); });
  SoftmaxRun<M, true>(run, block, first, last);
  ReorderColumns(run, true);
  VisibleValueBlock<M>(run, first, last);
  ReorderColumns(run, false);
  run.clock.Lap(kTicksOther);
}

template <class M>
static void RunDecode(const ForwardParams& p, const Task& task, float* scratch) {
  DecodeRun<M> run(p, task);
  PrepareDecode(run, scratch);
  run.clock.Lap(kTicksOther);
  if (task.begin == task.end) EmptyState(run);  // nobody sees a key
  const int64_t first_key = Max(task.begin * p.split_tokens, Min(run.lo, run.hi));
  run.next = BlockAt(p, run.s, run.lo, run.hi, first_key / p.block_tokens * p.block_tokens, run.offsets[0]);
  run.turn = 1;
  for (int64_t split = task.begin; split < task.end; ++split) {
    EmptyState(run);
    const int64_t split_end = Min((split + 1) * p.split_tokens, run.hi);
    while (run.next.first < run.next.last && run.next.start < split_end) {
      run.block = run.next;
      run.turn ^= 1;
      run.next = BlockAt(p, run.s, run.lo, run.hi, run.block.start + p.block_tokens, run.offsets[run.turn ^ 1]);
      RunBlock(run);
    }
    ReorderColumns(run, true);
    if (task.state < 0) break;
    for (int r = 0; r < run.rows; ++r) {
      const int64_t slot =
          task.state + ((split - task.begin) * p.heads_q + run.info[r].h) * run.s.seq_q + run.info[r].i;
      float* to = p.states + slot * p.state_floats;
      memcpy(to, run.o + r * run.ov, sizeof(float) * static_cast<size_t>(run.ov));
      to[run.ov] = run.m[r];
      to[run.ov + 1] = run.l[r];
    }
    run.clock.Lap(kTicksMerge);
  }
  if (task.state >= 0) return;
  for (int r = 0; r < run.rows; ++r) {
    FinishRow(p, run.s, run.scaling[r / run.group_rows], task.b, run.info[r].h, run.info[r].i, run.o + r * run.ov,
              run.m[r], run.l[r]);
  }
  run.clock.Lap(kTicksMerge);
}

// Folds the states of one row, left to right, and finishes it.
static void RunCombine(const ForwardParams& p, const Combine& c, int64_t head_q, int64_t position, float* scratch) {
  const Seq& s = p.seqs[c.b];
  const int64_t ov = p.state_floats - 2;
  const int64_t stride = p.heads_q * s.seq_q * p.state_floats;
  const float* state = p.states + (c.state + head_q * s.seq_q + position) * p.state_floats;
  PhaseClock clock(p.phase_ticks);
  const Scaling scaling = ScalingOf(p, c.b, head_q / p.group);
  float m = kMinusInf, l = 0.0f;
  memset(scratch, 0, sizeof(float) * static_cast<size_t>(ov));
  for (int n = 0; n < c.splits; ++n, state += stride) {
    FoldState(scratch, &m, &l, state, state[ov], state[ov + 1], scaling.exponent, ov);
  }
  FinishRow(p, s, scaling, c.b, head_q, position, scratch, m, l);
  clock.Lap(kTicksMerge);
}

template <class M>
static void RunTask(const ForwardParams& p, const Task& task, float* scratch) {
  task.kind == Task::kPrefill ? RunPrefill<M>(p, task, scratch) : RunDecode<M>(p, task, scratch);
}

template <class M>
static int64_t ScratchFloats(int head_dim, int qv_dim, int head_dim_v) {
  const int steps = Steps<M>(head_dim) + Steps<M>(qv_dim);
  return RoundUp(Max(PrefillScratch<M>(steps, head_dim_v).total, DecodeScratch<M>(steps, head_dim_v).total), 16);
}

static int64_t StateFloats(int head_dim_v) { return RoundUp(head_dim_v, kPanelKeys) + 2; }

template <class M>
static int64_t KeptFloats(int head_dim, int qv_dim, int head_dim_v) {
  const PrefillScratch<M> size(Steps<M>(head_dim) + Steps<M>(qv_dim), head_dim_v);
  return size.keys + size.values;
}

template <class M>
constexpr ForwardKernels MakeKernels() {
  return {kTileRows, ScratchFloats<M>, KeptFloats<M>, StateFloats, RunTask<M>, RunCombine, DropFactorsOf};
}

}  // namespace regard::cpu::REGARD_ISA
