// Decode: few query rows, all kv heads together, so that memory is read in whole token rows and each key once.
// A panel of keys is packed into L1 head by head and meets the very products of prefill; scores of a whole block are kept
// (rows x kBlockTokens), so that the maximum advances as in prefill. Splits run as tasks of their own; their states meet
// in Combine. Bits are those of prefill, whatever the split of tasks, heads or panels.
#pragma once

#include "src/cpu/tile/prefill.h"

namespace regard::cpu::REGARD_ISA {

template <class M>
struct DecodeScratch {
  // Floats of each part; D = 128, bf16, 32 query heads, AVX-512: q 8 KiB, panel 10 + 16 KiB in L1, scores 256 KiB, o 64.
  int qk_steps, o_floats;
  int64_t q, panel, values, scores, clean, o, total;
  DecodeScratch(int qk_dim_steps, int head_dim_v) {
    qk_steps = qk_dim_steps;
    o_floats = RoundUp(head_dim_v, kPanelKeys);
    q = RoundUp(static_cast<int64_t>(kDecodeRows) * qk_steps, 16);
    panel = static_cast<int64_t>(RoundUp(qk_steps, kLanes) + kLanes) * kPanelKeys;
    values = static_cast<int64_t>(kPanelKeys) / M::kPack * o_floats;
    scores = static_cast<int64_t>(kDecodeRows) * kBlockTokens;
    clean = static_cast<int64_t>(kPanelKeys) / M::kPack * kPanelKeys;
    o = static_cast<int64_t>(kDecodeRows) * o_floats;
    total = q + panel + values + scores + clean + o + 2 * kDecodeRows;
  }
};

template <class M>
static void RunDecode(const ForwardParams& p, const Task& task, float* scratch) {
  const Seq& s = p.seqs[task.b];
  const DecodeScratch<M> size(QkSteps<M>(p), p.head_dim_v);
  float* const q = scratch;
  float* const panel = q + size.q;
  float* const values = panel + size.panel;
  float* const scores = values + size.values;
  float* const clean = scores + size.scores;
  float* const o = clean + size.clean;
  float* const m = o + size.o;
  float* const l = m + kDecodeRows;
  const int64_t ov = size.o_floats;
  const int heads = task.head_end - task.head_begin;
  const int group_rows = static_cast<int>(p.group * s.seq_q);  // rows of one kv head
  const int rows = heads * group_rows;

  Row info[kDecodeRows];
  Scaling scaling[kDecodeRows];  // by kv head
  int64_t lo = INT64_MAX, hi = 0;
  bool edges = false;            // some row sees less than [lo, hi)
  for (int64_t i = 0; i < s.seq_q; ++i) {
    const Range range = VisibleRange(p, s, i);
    if (range.begin < range.end) {
      lo = Min(lo, range.begin);
      hi = Max(hi, range.end);
    }
    for (int n = 0; n < heads; ++n) {
      for (int64_t g = 0; g < p.group; ++g) {
        info[n * group_rows + i * p.group + g] = {task.b, (task.head_begin + n) * p.group + g, i, range.begin, range.end};
      }
    }
  }
  for (int n = 0; n < heads; ++n) {
    scaling[n] = ScalingOf(p, task.b, task.head_begin + n);
    for (int r = 0; r < group_rows; r += kTileRows) {
      PackQueries<M>(p, s, task.b, task.head_begin + n, r, static_cast<int>(Min(kTileRows, group_rows - r)),
                     scaling[n].qv_factor, q + static_cast<int64_t>(n * group_rows + r) * size.qk_steps);
    }
    edges = edges || scaling[n].transform;
  }
  for (int r = 0; r < rows; ++r) edges = edges || info[r].lo > lo || info[r].hi < hi || info[r].lo >= info[r].hi;

  // Keys [k, k + kPanelKeys) of a block, as far as it goes.
  const auto rows_ahead = [&](const KvView& view, const int64_t* offsets, int k, int last, int dim) {
    return StreamOf(view.data + task.head_begin * view.head_stride, offsets + k,
                    static_cast<int>(Max(Min(last - k, kPanelKeys), 0)), heads, view.head_stride,
                    dim * BytesOf(p.kv_type));
  };
  int64_t k_offsets[kBlockTokens], v_offsets[kBlockTokens];
  for (int64_t split = task.begin; split < task.end; ++split) {
    memset(o, 0, sizeof(float) * static_cast<size_t>(rows * ov));
    for (int r = 0; r < rows; ++r) {
      m[r] = kMinusInf;
      l[r] = 0.0f;
    }
    const int64_t split_end = Min((split + 1) * kSplitTokens, hi);
    for (int64_t block = split * kSplitTokens; block < split_end; block += kBlockTokens) {
      const int first = static_cast<int>(Max(lo - block, 0)) / kPanelKeys * kPanelKeys;
      const int last = static_cast<int>(Min(split_end - block, kBlockTokens));
      if (first >= last) continue;
      const int end = RoundUp(last, kPanelKeys);
      TokenOffsets(p, s, p.k, s.leftpad + block + first, last - first, k_offsets + first);
      TokenOffsets(p, s, p.v, s.leftpad + block + first, last - first, v_offsets + first);

      for (int k = first; k < last; k += kPanelKeys) {
        LineStream ahead = k + kPanelKeys < last ? rows_ahead(p.k, k_offsets, k + kPanelKeys, last, p.head_dim)
                                                      : rows_ahead(p.v, v_offsets, first, last, p.head_dim_v);
        for (int n = 0; n < heads; ++n) {
          PackPanel<M>(p, task.head_begin + n, k_offsets + k, v_offsets + k,
                       static_cast<int>(Min(kPanelKeys, last - k)), panel);
          for (int r = 0; r < group_rows; r += kTileRows) {
            const int row = n * group_rows + r;
            WithRows<kTileRows>(static_cast<int>(Min(kTileRows, group_rows - r)), [&](auto count) {
              ScoreTile<M, decltype(count)::value>(q + static_cast<int64_t>(row) * size.qk_steps, panel, size.qk_steps,
                                                   scores + static_cast<int64_t>(row) * kBlockTokens + k, ahead);
            });
          }
        }
      }
      for (int r = 0; r < rows; ++r) {
        const Scaling& c = scaling[r / group_rows];
        float* x = scores + static_cast<int64_t>(r) * kBlockTokens;
        if (edges || p.masks || block + first < lo || block + end > hi) {
          FinishScores(p, s, info[r], block + first, end - first, c.scale, c.transform, x + first);
        }
        SoftmaxBlock<M>(x, first, end, c.exponent, &m[r], &l[r], o + r * ov, ov);
      }
      for (int k = first; k < last; k += kPanelKeys) {
        const int keys = static_cast<int>(Min(kPanelKeys, last - k));
        LineStream ahead = rows_ahead(p.v, v_offsets, k + kPanelKeys, last, p.head_dim_v);
        const int steps = kPanelKeys / M::kPack;
        const int64_t panel_floats = static_cast<int64_t>(steps) * kPanelKeys;
        if (keys < kPanelKeys) memset(values, 0, sizeof(float) * static_cast<size_t>(size.values));
        for (int n = 0; n < heads; ++n) {
          const V finite = PackValues<M>(p.kv_type, p.v.data + (task.head_begin + n) * p.v.head_stride, v_offsets + k,
                                         keys, p.head_dim_v, panel_floats, values);
          const bool all_finite = ReduceAdd(finite) == 0.0f;
          for (int r = 0; r < group_rows; r += kTileRows) {
            const int row = n * group_rows + r;
            const float* probs = scores + static_cast<int64_t>(row) * kBlockTokens + k / M::kPack;
            WithRows<kTileRows>(static_cast<int>(Min(kTileRows, group_rows - r)), [&](auto count) {
              constexpr int R = decltype(count)::value;
              if (all_finite) {
                AccumulateValues<M, R>(probs, values, panel_floats, steps, p.head_dim_v, o + row * ov, ov, ahead);
              } else {
                for (int n_row = 0; n_row < R; ++n_row) {
                  AccumulateVisibleValues<M>(probs + n_row * kBlockTokens, values, panel_floats, steps, p.head_dim_v,
                                             o + (row + n_row) * ov, ov, clean);
                }
              }
            });
          }
        }
      }
    }
    if (task.state < 0) break;
    for (int r = 0; r < rows; ++r) {
      const int64_t slot = task.state + ((split - task.begin) * p.heads_q + info[r].h) * s.seq_q + info[r].i;
      float* to = p.states + slot * p.state_floats;
      memcpy(to, o + r * ov, sizeof(float) * static_cast<size_t>(ov));
      to[ov] = m[r];
      to[ov + 1] = l[r];
    }
  }
  if (task.state >= 0) return;
  if (task.begin == task.end) {  // nobody sees a key
    memset(o, 0, sizeof(float) * static_cast<size_t>(rows * ov));
    for (int r = 0; r < rows; ++r) {
      m[r] = kMinusInf;
      l[r] = 0.0f;
    }
  }
  for (int r = 0; r < rows; ++r) {
    FinishRow(p, s, scaling[r / group_rows], task.b, info[r].h, info[r].i, o + r * ov, m[r], l[r]);
  }
}

// Folds the states of one row, left to right, and finishes it.
static void RunCombine(const ForwardParams& p, const Combine& c, int64_t head_q, int64_t position, float* scratch) {
  const Seq& s = p.seqs[c.b];
  const int64_t ov = p.state_floats - 2;
  const int64_t stride = p.heads_q * s.seq_q * p.state_floats;
  const float* state = p.states + (c.state + head_q * s.seq_q + position) * p.state_floats;
  const Scaling scaling = ScalingOf(p, c.b, head_q / p.group);
  float m = kMinusInf, l = 0.0f;
  memset(scratch, 0, sizeof(float) * static_cast<size_t>(ov));
  for (int n = 0; n < c.splits; ++n, state += stride) {
    FoldState(scratch, &m, &l, state, state[ov], state[ov + 1], scaling.exponent, ov);
  }
  FinishRow(p, s, scaling, c.b, head_q, position, scratch, m, l);
}

template <class M>
static void RunTask(const ForwardParams& p, const Task& task, float* scratch) {
  task.kind == Task::kPrefill ? RunPrefill<M>(p, task, scratch) : RunDecode<M>(p, task, scratch);
}

template <class M>
static int64_t ScratchFloats(int qk_dim, int head_dim_v) {
  // qk_dim: D, plus Dv with qv; one step more covers two odd halves of a pair chain.
  const int steps = Steps<M>(qk_dim) + 1;
  return RoundUp(Max(PrefillScratch<M>(steps, head_dim_v).total, DecodeScratch<M>(steps, head_dim_v).total), 16);
}

static int64_t StateFloats(int head_dim_v) { return RoundUp(head_dim_v, kPanelKeys) + 2; }

template <class M>
constexpr ForwardKernels MakeKernels() {
  return {kTileRows, kLanes, ScratchFloats<M>, StateFloats, RunTask<M>, RunCombine};
}

}  // namespace regard::cpu::REGARD_ISA
