// The five products of the backward pass as register tiles, for one block of queries against one block of keys:
//
//   S = q k^T, P = 2^(c S - log2(e) lse)            dP = dO v^T, dS = P (dP - delta)
//   dQ += dS k                                      dV += P^T dO, dK += dS^T q
//
// (FlashAttention-2, algorithm 2.) Nothing is transposed: in the last two products the broadcast operand is read down a
// column of P and dS. With pairs of bf16, P lies as pairs of query rows, dS as pairs of query rows and as pairs of keys.
#pragma once

#include "src/cpu/tile/dropout.h"
#include "src/cpu/tile/mods.h"
#include "src/cpu/tile/products.h"

namespace regard::cpu::REGARD_ISA {

// Rows (of queries, or of keys) of a register tile; AVX-512: 8 x 2 accumulators + 2 panel vectors + a broadcast.
inline constexpr int kGradRows = kTileRows >= 8 ? 8 : 4;
// Queries and keys of a block: P and dS of 128 x 128, f32, take 64 KiB each.
inline constexpr int kGradBlock = 128;
inline constexpr int kGradTiles = kGradBlock / kGradRows;    // row tiles of a block
inline constexpr int kGradPanels = kGradBlock / kPanelKeys;  // key panels of a block
static_assert(kGradBlock % kPanelKeys == 0 && kPanelKeys % kGradRows == 0 && kGradRows % 2 == 0);
// Floats between rows of scores: 9 lines, so that a column of 128 rows does not meet in a few sets of L1.
inline constexpr int kGradStride = kGradBlock + 16;

template <class M>
inline constexpr int kKeyStride = kGradBlock / M::kPack + 16;  // dwords between rows of dS paired along keys

// P and dS of a block pair. f32: `scores` holds S, then P, in [query][key]; `ds` holds dS; row_p and row_ds are these
// two. Pairs: `scores` holds S; `ds` [query][key / 2], row_p and row_ds [query / 2][key], in pairs.
struct GradBlock {
  float *scores, *ds, *row_p, *row_ds;
  float *slope;   // [query][key]: derivative of the softcap; null: none
  float *factor;  // [query][key]: dropout's; null: none
};

// S of one row tile against the first N vectors of one panel of keys.
template <class M, int N>
static void GradScores(const float* q, const float* panel, int steps, float* scores) {
  V acc[kGradRows][N];
  NoStream none;
  REGARD_UNROLL
  for (int r = 0; r < kGradRows; ++r) {
    REGARD_UNROLL
    for (int n = 0; n < N; ++n) acc[r][n] = Zero();
  }
  MacChain<M, kGradRows, N, 1, kGradRows>(q, panel, steps, acc, none);
  REGARD_UNROLL
  for (int r = 0; r < kGradRows; ++r) {
    REGARD_UNROLL
    for (int n = 0; n < N; ++n) Store(scores + r * kGradStride + n * kLanes, acc[r][n]);
  }
}

// dP of one row tile against the first N vectors of one panel of keys, then P and dS of these, and -0 for the rest of the
// panel. row, key: of the tile in the block. kGeneral: some keys may be hidden (scores -inf there: P and dS become -0,
// the mark of ClearedChain), and slope and factor apply. lse: -log2(e) * lse of each row; delta: of each row.
template <class M, bool kGeneral, int N>
static void GradProbabilities(const float* dout, const float* panel, int steps, float c, const float* lse,
                              const float* delta, int row, int key, const GradBlock& block) {
  V acc[kGradRows][N];
  NoStream none;
  REGARD_UNROLL
  for (int r = 0; r < kGradRows; ++r) {
    REGARD_UNROLL
    for (int n = 0; n < N; ++n) acc[r][n] = Zero();
  }
  MacChain<M, kGradRows, N, 1, kGradRows>(dout, panel, steps, acc, none);
  const V vc = Splat(c);
  const auto one = [&](int r, int n, V* p, V* ds) {
    if (n >= N) {
      *p = *ds = Splat(-0.0f);
      return;
    }
    const int64_t at = static_cast<int64_t>(row + r) * kGradStride + key + n * kLanes;
    const V x = Load(block.scores + at);
    V weight = Exp2(Fma(x, vc, SplatMem(lse + r)));
    V from = acc[r][n];
    V kept = weight;
    if constexpr (kGeneral) {
      if (block.factor) {
        const V factor = Load(block.factor + at);
        from = Mul(from, factor);
        kept = Mul(weight, factor);
      }
    }
    V grad = Mul(weight, Sub(from, SplatMem(delta + r)));
    if constexpr (kGeneral) {
      if (block.slope) grad = Mul(grad, Load(block.slope + at));
      kept = MarkMasked(x, kept);
      grad = MarkMasked(x, grad);
    }
    *p = kept;
    *ds = grad;
  };
  if constexpr (M::kPack == 1) {
    REGARD_UNROLL
    for (int r = 0; r < kGradRows; ++r) {
      REGARD_UNROLL
      for (int n = 0; n < 2; ++n) {
        V p, ds;
        one(r, n, &p, &ds);
        const int64_t at = static_cast<int64_t>(row + r) * kGradStride + key + n * kLanes;
        Store(block.row_p + at, p);
        Store(block.row_ds + at, ds);
      }
    }
  } else {
#ifdef REGARD_HAS_BF16_PAIRS
    REGARD_UNROLL
    for (int r = 0; r < kGradRows; r += 2) {
      V ds[2][2];
      REGARD_UNROLL
      for (int n = 0; n < 2; ++n) {
        V p0, p1;
        one(r, n, &p0, &ds[0][n]);
        one(r + 1, n, &p1, &ds[1][n]);
        const int64_t at = static_cast<int64_t>((row + r) / 2) * kGradStride + key + n * kLanes;
        Store(block.row_p + at, PairRows(p0, p1));
        Store(block.row_ds + at, PairRows(ds[0][n], ds[1][n]));
      }
      REGARD_UNROLL
      for (int i = 0; i < 2; ++i) {
        Store(block.ds + static_cast<int64_t>(row + r + i) * kKeyStride<M> + key / 2, PackPairs(ds[i][0], ds[i][1]));
      }
    }
#endif
  }
}

// o[r][2 vectors] += a chain over steps of a(r, step) * panel[step], a(r, step) = a[r * kRow + step * kStep]. fresh: o
// holds nothing yet. The rows below, of the tile to come, are fetched meanwhile: they lie too far apart for the hardware
// to guess, and at long sequences beyond L2 (Zen 4, one thread, bf16 s = 2048: 1.8 % of the whole pass).
template <class M, int kRow, int kStep>
static void GradTile(const float* a, const float* panel, int steps, bool fresh, float* o, int64_t o_stride) {
  V acc[kGradRows][2];
  NoStream none;
  REGARD_UNROLL
  for (int r = 0; r < kGradRows; ++r) {
    acc[r][0] = fresh ? Zero() : Load(o + r * o_stride);
    acc[r][1] = fresh ? Zero() : Load(o + r * o_stride + kLanes);
  }
  const float* const next = o + kGradRows * o_stride;
  REGARD_UNROLL
  for (int r = 0; r < kGradRows; ++r) {
    PrefetchNear(next + r * o_stride);
    if constexpr (kLanes * sizeof(float) >= 64) PrefetchNear(next + r * o_stride + kLanes);
  }
  MacChain<M, kGradRows, 2, kRow, kStep>(a, panel, steps, acc, none);
  REGARD_UNROLL
  for (int r = 0; r < kGradRows; ++r) {
    Store(o + r * o_stride, acc[r][0]);
    Store(o + r * o_stride + kLanes, acc[r][1]);
  }
}

// The same for one row, where the panel holds NaN or infinity: a weight marked -0 (a hidden pair) meets zeros, so that
// what it hides never arrives. Bits of finite sums are those of GradTile.
template <class M>
static void ClearedChain(const float* a, int step, const float* panel, int steps, bool fresh, float* o) {
  V acc0 = fresh ? Zero() : Load(o), acc1 = fresh ? Zero() : Load(o + kLanes);
  for (int t = 0; t < steps; ++t, a += step, panel += 2 * kLanes) {
    const V kept = SplatBits(VisibleBits<M>(a));
    acc0 = M::Mac(SplatMem(a), AndBits(Load(panel), kept), acc0);
    acc1 = M::Mac(SplatMem(a), AndBits(Load(panel + kLanes), kept), acc1);
  }
  Store(o, acc0);
  Store(o + kLanes, acc1);
}

// One tile of rows either way.
template <class M, int kRow, int kStep>
static void GradRowsTile(bool finite, const float* a, const float* panel, int steps, bool fresh, float* o,
                         int64_t o_stride) {
  if (finite) return GradTile<M, kRow, kStep>(a, panel, steps, fresh, o, o_stride);
  for (int r = 0; r < kGradRows; ++r) ClearedChain<M>(a + r * kRow, kStep, panel, steps, fresh, o + r * o_stride);
}

}  // namespace regard::cpu::REGARD_ISA
