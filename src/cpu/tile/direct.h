// The products of decode, straight from the cache: with few query rows it costs more to write a packed panel and read it
// back than to multiply it. Keys are transposed in registers and values used as they are loaded. The chains are those of
// products.h, so the bits are too.
#pragma once

#include "src/cpu/tile/pack.h"
#include "src/cpu/tile/products.h"

namespace regard::cpu::REGARD_ISA {

// Most rows that these products take: kLanes transposed vectors and this many accumulators share the registers.
inline constexpr int kDirectRows = kTileRows < 8 ? kTileRows : 8;

// Continues the chains acc[r] of kLanes keys (n of them exist) over `dim` elements of rows at base + offsets[t].
// q: [steps][R], advanced by the steps taken.
template <class M, Elem T, int R, class Stream>
REGARD_INLINE void ScoreKeys(const char* base, const int64_t* offsets, int n, int dim, const float*& q, V (&acc)[R],
                             Stream& stream) {
  constexpr int kChunk = kLanes * M::kPack;
  constexpr int kBytes = BytesOf(T);
  for (int d = 0; d < dim; d += kChunk) {
    V k[kLanes];
    const char* at = base + d * kBytes;
    const int left = dim - d;
    if (left >= kChunk && n == kLanes) {
      REGARD_UNROLL
      for (int t = 0; t < kLanes; ++t) k[t] = M::template LoadDwords<T>(at + offsets[t]);
    } else {
      for (int t = 0; t < kLanes; ++t) {
        k[t] = t >= n ? Zero() : left >= kChunk ? M::template LoadDwords<T>(at + offsets[t])
                                                : LoadDwordsPartial<M, T>(at + offsets[t], left);
      }
    }
    Transpose(k);
    if (left >= kChunk) {
      REGARD_UNROLL
      for (int i = 0; i < kLanes; ++i, q += R) {
        Next(stream);
        REGARD_UNROLL
        for (int r = 0; r < R; ++r) acc[r] = M::Mac(SplatMem(q + r), k[i], acc[r]);
      }
    } else {
      const int steps = Steps<M>(left);
      for (int i = 0; i < steps; ++i, q += R) {
        for (int r = 0; r < R; ++r) acc[r] = M::Mac(SplatMem(q + r), k[i], acc[r]);
      }
    }
  }
}

// What a panel of keys is: rows of k, and with qv rows of v, at base + offsets[t].
struct PanelRows {
  const char *k, *v;
  const int64_t *k_offsets, *v_offsets;
  int keys, head_dim, qv_dim;
};

// ScoreTile without a packed panel: scores[r * kScoreStride + key] of R rows.
template <class M, Elem T, int R, class Stream>
static void ScoreDirect(const PanelRows& rows, const float* q, float* scores, Stream& stream) {
  for (int first = 0; first < kPanelKeys; first += kLanes) {
    V acc[R];
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) acc[r] = Zero();
    const int n = static_cast<int>(Max(Min(rows.keys - first, kLanes), 0));
    const float* step = q;
    for (int part = 0; part < (rows.qv_dim > 0 ? 2 : 1); ++part) {  // k, then v with qv
      ScoreKeys<M, T, R>(part == 0 ? rows.k : rows.v, (part == 0 ? rows.k_offsets : rows.v_offsets) + first, n,
                         part == 0 ? rows.head_dim : rows.qv_dim, step, acc, stream);
    }
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) Store(scores + r * kScoreStride + first, acc[r]);
  }
}

// One whole panel of 2 * kLanes columns of the values of `keys` keys.
template <class M, Elem T, int R, class Stream>
REGARD_INLINE void ValuePanel(const char* base, const int64_t* offsets, int keys, const float* probs, float* o,
                              int64_t o_stride, Stream& stream) {
  V acc[R][2];
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    acc[r][0] = Load(o + r * o_stride);
    acc[r][1] = Load(o + r * o_stride + kLanes);
  }
  for (int t = 0; t < keys; t += M::kPack, ++probs) {
    V v0 = M::template LoadDwords<T>(base + offsets[t]), v1;
    if constexpr (M::kPack == 1) {
      v1 = M::template LoadDwords<T>(base + offsets[t] + kLanes * BytesOf(T));
    } else {
#ifdef REGARD_HAS_BF16_PAIRS
      const V a = v0, b = t + 1 < keys ? M::template LoadDwords<T>(base + offsets[t + 1]) : Zero();
      Interleave(a, b, &v0, &v1);
#endif
    }
    Next(stream);
    Next(stream);
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      const V p = SplatMem(probs + r * kScoreStride);
      acc[r][0] = M::Mac(p, v0, acc[r][0]);
      acc[r][1] = M::Mac(p, v1, acc[r][1]);
    }
  }
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    Store(o + r * o_stride, M::Settle(acc[r][0]));
    Store(o + r * o_stride + kLanes, M::Settle(acc[r][1]));
  }
}

// AccumulateValues without packed panels; columns that fill no whole panel go through `tail` (kPanelKeys * kPanelKeys
// floats). Values must be finite, or the caller finds out from o and starts again.
template <class M, Elem T, int R, class Stream>
static void ValueDirect(const char* base, const int64_t* offsets, int keys, int dim_v, const float* probs, float* o,
                        int64_t o_stride, float* tail, Stream& stream) {
  int c = 0;
  for (; c + 2 * kLanes <= dim_v; c += 2 * kLanes, base += 2 * kLanes * BytesOf(T)) {
    ValuePanel<M, T, R>(base, offsets, keys, probs, o + c, o_stride, stream);
  }
  if (c == dim_v) return;
  PackValuesAs<M, T>(base, offsets, keys, dim_v - c, 0, stream, tail);
  if (dim_v - c > kLanes) {
    ValueTile<M, R, 2>(probs, tail, Steps<M>(keys), Start::kKeep, nullptr, o + c, o_stride, stream);
  } else {
    ValueTile<M, R, 1>(probs, tail, Steps<M>(keys), Start::kKeep, nullptr, o + c, o_stride, stream);
  }
}

}  // namespace regard::cpu::REGARD_ISA
