// Prefill: FlashAttention-2, algorithm 1, on a CPU. A task is up to kTaskRows query rows (positions x heads of the group)
// of one kv head. Each block of keys is packed once for all its rows, in L2; row tiles then run scores -> softmax -> PV.
// Invariant: after block t, a row's (split state) is the exact softmax over its visible keys from the split's start to
// the end of t; splits fold left to right. Rows of a task never mix, so what else is in it changes no bit.
#pragma once

#include "src/cpu/tile/mods.h"
#include "src/cpu/tile/pack.h"
#include "src/cpu/tile/products.h"
#include "src/cpu/tile/softmax.h"

namespace regard::cpu::REGARD_ISA {

template <class M>
struct PrefillScratch {
  // Floats of each part; D = 128, f32, AVX-512: q 192 KiB + K 288 + V 256 + scores 24 + states 2 x 192 + clean 64 = 1208.
  int qk_steps, o_floats, panel_steps;
  int64_t q, keys, values, scores, clean, o, total;
  PrefillScratch(int qk_dim_steps, int head_dim_v) {
    qk_steps = qk_dim_steps;
    panel_steps = RoundUp(qk_steps, kLanes) + kLanes;  // PackKeys writes whole vectors past the last step
    o_floats = RoundUp(head_dim_v, kPanelKeys);
    q = static_cast<int64_t>(RoundUp(kTaskRows, kTileRows)) * qk_steps;
    keys = static_cast<int64_t>(kBlockTokens) * panel_steps;
    values = static_cast<int64_t>(kBlockTokens) / M::kPack * o_floats;
    scores = static_cast<int64_t>(kTileRows) * kBlockTokens;
    clean = static_cast<int64_t>(kBlockTokens) / M::kPack * kPanelKeys;
    o = static_cast<int64_t>(kTaskRows) * o_floats;
    total = RoundUp(q, 16) + keys + values + scores + clean + 2 * o + 4 * kTaskRows;
  }
};

template <class M>
static int QkSteps(const ForwardParams& p) {
  return Steps<M>(p.head_dim) + Steps<M>(p.qv_dim);
}

// Rows r of (sequence, kv head) are numbered position * group + head in group.
template <class M>
static void PackQueries(const ForwardParams& p, const Seq& s, int64_t b, int64_t head_kv, int64_t row, int rows,
                        float qv_factor, float* dst) {
  for (int r = 0; r < rows; ++r) {
    const int64_t i = (row + r) / p.group, h = head_kv * p.group + (row + r) % p.group;
    const int64_t at = p.varlen ? s.q_row + i : i, batch = p.varlen ? 0 : b;
    PackQueryRow<M>(p.q_type, p.q + batch * p.q_stride_b + at * p.q_stride_s + h * p.q_stride_h, p.head_dim, rows, r,
                    1.0f, dst);
    if (p.qv_dim > 0) {
      PackQueryRow<M>(p.q_type, p.qv + batch * p.qv_stride_b + at * p.qv_stride_s + h * p.qv_stride_h, p.qv_dim, rows,
                      r, qv_factor, dst + Steps<M>(p.head_dim) * rows);
    }
  }
}

// K panel of keys whose offsets are given; with qv, v follows k on the chain.
template <class M, class Stream>
static void PackPanel(const ForwardParams& p, int64_t head_kv, const int64_t* k_offsets, const int64_t* v_offsets, int n,
                      Stream& stream, float* dst) {
  PackKeys<M>(p.kv_type, p.k.data + head_kv * p.k.head_stride, k_offsets, n, p.head_dim, stream, dst);
  if (p.qv_dim > 0) {
    PackKeys<M>(p.kv_type, p.v.data + head_kv * p.v.head_stride, v_offsets, n, p.qv_dim, stream,
                dst + Steps<M>(p.head_dim) * kPanelKeys);
  }
}

template <class M>
static void RunPrefill(const ForwardParams& p, const Task& task, float* scratch) {
  const Seq& s = p.seqs[task.b];
  const int64_t head_kv = task.head_begin;
  const int rows = static_cast<int>(task.end - task.begin);
  const Scaling scaling = ScalingOf(p, task.b, head_kv);
  const PrefillScratch<M> size(QkSteps<M>(p), p.head_dim_v);
  float* const q = scratch;
  float* const keys = q + RoundUp(size.q, 16);
  float* const values = keys + size.keys;
  float* const scores = values + size.values;
  float* const clean = scores + size.scores;
  float* state = clean + size.clean;     // of the split at hand: o, then m and l of all rows
  float* total = state + size.o;         // of the splits before
  float* m = total + size.o;
  float* l = m + kTaskRows;
  float* total_m = l + kTaskRows;
  float* total_l = total_m + kTaskRows;
  const int64_t ov = size.o_floats;

  Row info[kTaskRows];
  int64_t lo = INT64_MAX, hi = 0;
  for (int r = 0; r < rows; ++r) {
    const int64_t i = (task.begin + r) / p.group;
    const bool same = r > 0 && info[r - 1].i == i;
    const Range range = same ? Range{info[r - 1].lo, info[r - 1].hi} : VisibleRange(p, s, i);
    info[r] = {task.b, head_kv * p.group + (task.begin + r) % p.group, i, range.begin, range.end};
    if (range.begin < range.end) {
      lo = Min(lo, range.begin);
      hi = Max(hi, range.end);
    }
  }
  for (int r = 0; r < rows; r += kTileRows) {
    const int n = static_cast<int>(Min(kTileRows, rows - r));
    PackQueries<M>(p, s, task.b, head_kv, task.begin + r, n, scaling.qv_factor, q + static_cast<int64_t>(r) * size.qk_steps);
  }
  for (int r = 0; r < rows; ++r) {
    total_m[r] = kMinusInf;
    total_l[r] = 0.0f;
  }
  memset(total, 0, sizeof(float) * static_cast<size_t>(rows * ov));

  NoStream none;
  int64_t k_offsets[kBlockTokens], v_offsets[kBlockTokens];
  for (int64_t split = lo < hi ? lo / kSplitTokens : 0; split * kSplitTokens < hi; ++split) {
    memset(state, 0, sizeof(float) * static_cast<size_t>(rows * ov));
    for (int r = 0; r < rows; ++r) {
      m[r] = kMinusInf;
      l[r] = 0.0f;
    }
    const int64_t split_end = Min((split + 1) * kSplitTokens, hi);
    for (int64_t block = split * kSplitTokens; block < split_end; block += kBlockTokens) {
      // Keys [first, last) of the block that some row sees; panels keep their place in the block.
      const int first = static_cast<int>(Min(Max(lo - block, 0), kBlockTokens)) / kPanelKeys * kPanelKeys;
      const int last = static_cast<int>(Min(split_end - block, kBlockTokens));
      if (first >= last) continue;
      TokenOffsets(p, s, p.k, s.leftpad + block + first, last - first, k_offsets + first);
      TokenOffsets(p, s, p.v, s.leftpad + block + first, last - first, v_offsets + first);
      // Packing reads one panel behind what it fetches.
      const auto ahead = [&](const KvView& view, const int64_t* offsets, int begin, int dim) {
        return StreamOf(view.data + head_kv * view.head_stride, offsets + begin, static_cast<int>(Max(last - begin, 0)), 1,
                        view.head_stride, dim * BytesOf(p.kv_type));
      };
      LineStream k_ahead = ahead(p.k, k_offsets, first + kPanelKeys, p.head_dim);
      LineStream v_ahead = ahead(p.v, v_offsets, first + kPanelKeys, p.head_dim_v);
      for (int k = first; k < last; k += kPanelKeys) {
        PackPanel<M>(p, head_kv, k_offsets + k, v_offsets + k, static_cast<int>(Min(kPanelKeys, last - k)), k_ahead,
                     keys + static_cast<int64_t>(k) * size.panel_steps);
      }
      const int64_t panel_floats = static_cast<int64_t>(kBlockTokens) / M::kPack * kPanelKeys;
      const V finite = PackValues<M>(p.kv_type, p.v.data + head_kv * p.v.head_stride, v_offsets + first, last - first,
                                     p.head_dim_v, panel_floats, v_ahead, values + first / M::kPack * kPanelKeys);
      const bool all_finite = ReduceAdd(finite) == 0.0f;
      // Rows past the last key, up to the panel's end, meet weights of -0.
      for (int c = 0; c < size.o_floats / kPanelKeys; ++c) {
        const int end = RoundUp(last, kPanelKeys) / M::kPack, at = (last + M::kPack - 1) / M::kPack;
        memset(values + c * panel_floats + at * kPanelKeys, 0, sizeof(float) * static_cast<size_t>((end - at) * kPanelKeys));
      }

      for (int t = 0; t < rows; t += kTileRows) {
        const int n = static_cast<int>(Min(kTileRows, rows - t));
        int64_t tile_lo = INT64_MAX, tile_hi = 0;
        for (int r = t; r < t + n; ++r) {
          if (info[r].lo >= info[r].hi) continue;
          tile_lo = Min(tile_lo, info[r].lo);
          tile_hi = Max(tile_hi, info[r].hi);
        }
        const int begin = static_cast<int>(Min(Max(tile_lo - block, 0), kBlockTokens)) / kPanelKeys * kPanelKeys;
        const int end = RoundUp(static_cast<int>(Max(Min(tile_hi - block, last), 0)), kPanelKeys);
        if (begin >= end) continue;
        const float* tile_q = q + static_cast<int64_t>(t) * size.qk_steps;
        WithRows<kTileRows>(n, [&](auto count) {
          constexpr int R = decltype(count)::value;
          for (int k = begin; k < end; k += kPanelKeys) {
            ScoreTile<M, R>(tile_q, keys + static_cast<int64_t>(k) * size.panel_steps, size.qk_steps, scores + k, none);
          }
          for (int r = 0; r < R; ++r) {
            float* x = scores + r * kBlockTokens;
            FinishScores(p, s, info[t + r], block + begin, end - begin, scaling.scale, scaling.transform, x + begin);
            SoftmaxBlock<M>(x, begin, end, scaling.exponent, &m[t + r], &l[t + r], state + (t + r) * ov, ov);
          }
          const float* probs = scores + begin / M::kPack;
          const float* v = values + begin / M::kPack * kPanelKeys;
          const int steps = (end - begin) / M::kPack;
          if (all_finite) {
            AccumulateValues<M, R>(probs, v, panel_floats, steps, p.head_dim_v, state + t * ov, ov, none);
          } else {
            for (int r = 0; r < R; ++r) {
              AccumulateVisibleValues<M>(probs + r * kBlockTokens, v, panel_floats, steps, p.head_dim_v,
                                         state + (t + r) * ov, ov, clean);
            }
          }
        });
      }
    }
    for (int r = 0; r < rows; ++r) {
      FoldState(total + r * ov, &total_m[r], &total_l[r], state + r * ov, m[r], l[r], scaling.exponent, ov);
    }
  }
  for (int r = 0; r < rows; ++r) {
    FinishRow(p, s, scaling, task.b, info[r].h, info[r].i, total + r * ov, total_m[r], total_l[r]);
  }
}

}  // namespace regard::cpu::REGARD_ISA
