// The two products as register tiles: R query rows x 2 vectors, one chain per element, operands streamed from L1/L2.
#pragma once

#include "src/cpu/tile/kv_reader.h"

namespace regard::cpu::REGARD_ISA {

// acc[r][n] <- chain over steps of a(r, step) * b[step][n]; a(r, step) = a[r * kRowStride + step * kStepStride].
// Each step also calls Next(stream) twice (f32 and bf16 pairs: as many lines as the product consumes).
template <class M, int R, int N, int kRowStride, int kStepStride, class Stream>
REGARD_INLINE void MacChain(const float* a, const float* b, int steps, V (&acc)[R][N], Stream& stream) {
  for (int t = 0; t < steps; ++t, a += kStepStride, b += 2 * kLanes) {
    Next(stream);
    Next(stream);
    V bv[N];
    REGARD_UNROLL
    for (int n = 0; n < N; ++n) bv[n] = Load(b + n * kLanes);
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      const V av = SplatMem(a + r * kRowStride);
      REGARD_UNROLL
      for (int n = 0; n < N; ++n) acc[r][n] = M::Mac(av, bv[n], acc[r][n]);
    }
  }
}

// Scores of R rows against one panel of kPanelKeys keys: scores[r * kScoreStride + key]. q: [steps][R].
template <class M, int R, class Stream>
static void ScoreTile(const float* q, const float* panel, int steps, float* scores, Stream& stream) {
  V acc[R][2];
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = Zero();
  MacChain<M, R, 2, 1, R>(q, panel, steps, acc, stream);
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    Store(scores + r * kScoreStride, acc[r][0]);
    Store(scores + r * kScoreStride + kLanes, acc[r][1]);
  }
}

// What a value tile starts from: the o of blocks before, as it is or times alpha[r], or nothing yet.
enum class Start { kEmpty, kKeep, kRescale };

// o[r][N vectors] <- start, then a chain over key steps of probs(r, step) * values[step][2 * kLanes]; probs rows are
// kScoreStride apart.
template <class M, int R, int N, class Stream>
static void ValueTile(const float* probs, const float* values, int steps, Start start, const float* alpha, float* o,
                      int64_t o_stride, Stream& stream) {
  V acc[R][N];
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int n = 0; n < N; ++n) acc[r][n] = start == Start::kEmpty ? Zero() : Load(o + r * o_stride + n * kLanes);
  }
  if (start == Start::kRescale) {
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      REGARD_UNROLL
      for (int n = 0; n < N; ++n) acc[r][n] = Mul(acc[r][n], SplatMem(alpha + r));
    }
  }
  MacChain<M, R, N, kScoreStride, 1>(probs, values, steps, acc, stream);
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int n = 0; n < N; ++n) Store(o + r * o_stride + n * kLanes, M::Settle(acc[r][n]));
  }
}

// All columns of R rows. values: column panels, panel_floats apart.
template <class M, int R, class Stream>
static void AccumulateValues(const float* probs, const float* values, int64_t panel_floats, int steps, int dim_v,
                             Start start, const float* alpha, float* o, int64_t o_stride, Stream& stream) {
  int c = 0;
  for (; c + kLanes < dim_v; c += 2 * kLanes, values += panel_floats) {
    ValueTile<M, R, 2>(probs, values, steps, start, alpha, o + c, o_stride, stream);
  }
  if (c < dim_v) ValueTile<M, R, 1>(probs, values, steps, start, alpha, o + c, o_stride, stream);
}

// Of two values (f32: of one, both halves) what the weight at `at` leaves: none of its bits where it is marked -0, masked.
template <class M>
static uint32_t VisibleBits(const float* at) {
  uint32_t weight;
  memcpy(&weight, at, 4);
  if constexpr (M::kPack == 1) return weight == 0x80000000u ? 0 : 0xffffffffu;
  return ((weight & 0xffffu) == 0x8000u ? 0 : 0x0000ffffu) | ((weight >> 16) == 0x8000u ? 0 : 0xffff0000u);
}

// The same for one row, when values holds NaN or infinity: rows with a masked weight (-0) are replaced by zeros first,
// kPanelKeys keys at a time, so that a masked key's value never arrives. Bits of all other rows are those of
// AccumulateValues. `clean` has room for kPanelKeys / kPack * 2 * kLanes floats.
template <class M>
static void AccumulateVisibleValues(const float* probs, const float* values, int64_t panel_floats, int steps, int dim_v,
                                    Start start, const float* alpha, float* o, float* clean) {
  constexpr int kSteps = kPanelKeys / M::kPack;
  NoStream none;
  for (int first = 0; first < steps; first += kSteps, start = Start::kKeep) {
    const int n = static_cast<int>(Min(kSteps, steps - first));
    const float* panel = values + first * kPanelKeys;
    for (int c = 0; c < dim_v; c += 2 * kLanes, panel += panel_floats) {
      memcpy(clean, panel, sizeof(float) * 2 * kLanes * static_cast<size_t>(n));
      for (int t = 0; t < n; ++t) {
        const uint32_t keep = VisibleBits<M>(probs + first + t);
        if (keep == 0xffffffffu) continue;
        float* const row = clean + t * 2 * kLanes;
        Store(row, AndBits(Load(row), SplatBits(keep)));
        Store(row + kLanes, AndBits(Load(row + kLanes), SplatBits(keep)));
      }
      if (c + kLanes < dim_v) {
        ValueTile<M, 1, 2>(probs + first, clean, n, start, alpha, o + c, 0, none);
      } else {
        ValueTile<M, 1, 1>(probs + first, clean, n, start, alpha, o + c, 0, none);
      }
    }
  }
}

}  // namespace regard::cpu::REGARD_ISA
