// The products of decode, straight from the cache: with few query rows it costs more to write a packed panel and read
// it back than to multiply it. Keys are transposed in registers and values used as they are loaded. The chains are
// those of products.h, so the bits are too.
#pragma once

#include "src/cpu/simd/units.h"
#include "src/cpu/tile/pack.h"
#include "src/cpu/tile/products.h"

namespace regard::cpu::REGARD_ISA {

// Most rows of a group that the score product takes at once, and at all: with KeyUnit, 4 rows x 2 key vectors leave the
// registers that a transpose under way needs.
template <class M, Elem T>
inline constexpr int kScoreRows = KeyUnit<M, T>::kSteps > 0 ? 4 : kTileRows < 8 ? kTileRows : 8;
inline constexpr int kDirectRows = kTileRows < 8 ? kTileRows : 8;
// Rows of a value product: with 4 column vectors, 16 accumulators.
inline constexpr int kValueRows = 4;
// Keys that the score product takes at once.
template <class M, Elem T>
inline constexpr int kScoreKeys = KeyUnit<M, T>::kVectors * kLanes;
// Panels that the value product takes before it turns to the next head, a stream of what is fetched for each.
template <class M, Elem T>
inline constexpr int kValuePanels = ValueUnit<M, T>::kKeys > kPanelKeys ? ValueUnit<M, T>::kKeys / kPanelKeys : 1;

// Columns that ValueUnit takes at once are a half of a line of 64 bytes, or whole lines.
template <class M, Elem T>
inline constexpr int kValueParts = M::kPack * ValueUnit<M, T>::kColumns * BytesOf(T) < 64 ? 2 : 1;

// Whether K of the next head goes to L1 one head ahead. Zen 4, one thread, 32k tokens of 8 heads of 128, ms of all K
// without and with: bf16 2.74, 2.63; f32, whose rows lie further apart, in fewer sets of L1, 4.94, 5.07.
template <Elem T>
inline constexpr bool kFetchNear = BytesOf(T) < 4;

// Where keys are transposed to, two turns of one unit (kUnitDwords x kScoreKeys dwords, 1 or 2 KiB): the chains
// run over one while the other is filled, one slice of the transpose a step. Shuffles and products use different pipes,
// but a core looks only some 160 results ahead: left apart, they would wait for one another (Zen 4, bf16: 8.8 cycles a
// line apart, 5 interleaved).
struct KeyStage {
  static constexpr int kFloats = kUnitDwords * kPanelKeys;
  float* buffer;     // 2 * kFloats
  int turn;          // which holds the unit to come
  bool ready, care;  // it does; KeyUnit's Check of it
};

// Steps [first, last) of the chains in whole units of rows that all exist. `next`: the rows whose first unit is
// transposed during the last one.
template <class M, Elem T, int R, int N, class Stream>
REGARD_INLINE void ScoreUnits(const char* base, const int64_t* offsets, int units, const char* next,
                              const int64_t* next_offsets, KeyStage& stage, const float*& q, V (&acc)[R][N],
                              Stream& stream) {
  using Unit = KeyUnit<M, T>;
  constexpr int kLinesAStep = N * kLanes / kUnitDwords, kSlices = 8 * N;
  const typename Unit::Converter converter{};
  if (!stage.ready) {
    V t[kUnitDwords];
    auto seen = Unit::None();
    REGARD_UNROLL
    for (int i = 0; i < kSlices; ++i) {
      Unit::Slice(i, base, offsets, t, seen, stage.buffer + stage.turn * KeyStage::kFloats);
    }
    stage.care = Unit::Check(seen);
  }
  for (int u = 0; u < units; ++u) {
    const bool last = u + 1 == units;
    const char* const from = last ? next : base + (u + 1) * kUnitDwords * 4;
    const int64_t* const from_offsets = last ? next_offsets : offsets;
    const float* k = stage.buffer + stage.turn * KeyStage::kFloats;
    stage.turn ^= 1;
    float* const to = stage.buffer + stage.turn * KeyStage::kFloats;
    const bool care = stage.care;
    Lines ahead[kLinesAStep * kUnitDwords / kTurnLines];
    for (Lines& lines : ahead) lines = Take(stream);
    V t[kUnitDwords];
    auto seen = Unit::None();
    REGARD_UNROLL
    for (int i = 0; i < kUnitDwords; ++i) {
      REGARD_UNROLL
      for (int n = 0; n < kLinesAStep; ++n) Fetch(ahead[(kLinesAStep * i + n) / kTurnLines], (kLinesAStep * i + n) % kTurnLines);
      V y[N][Unit::kSteps];
      REGARD_UNROLL
      for (int n = 0; n < N; ++n) Unit::Expand(converter, Load(k + (N * i + n) * kLanes), care, y[n]);
      if (i * kSlices % kUnitDwords == 0) {
        Unit::Slice(i * kSlices / kUnitDwords, from, from_offsets, t, seen, to);
      }
      if constexpr (kFetchNear<T>) {
        REGARD_UNROLL
        for (int n = 0; n < kLinesAStep; ++n) {
          PrefetchNear(next + u * kUnitDwords * 4 + next_offsets[kLinesAStep * i + n]);
        }
      }
      REGARD_UNROLL
      for (int s = 0; s < Unit::kSteps; ++s, q += R) {
        REGARD_UNROLL
        for (int r = 0; r < R; ++r) {
          REGARD_UNROLL
          for (int n = 0; n < N; ++n) {
            acc[r][n] = r < Unit::kOwnBroadcasts ? M::MacMem(q + r, y[n][s], acc[r][n])
                                                 : M::Mac(SplatMem(q + r), y[n][s], acc[r][n]);
          }
        }
      }
    }
    stage.care = Unit::Check(seen);
  }
}

// ScoreKeys from element `d` on, in the general way: any number of keys and dims.
template <class M, Elem T, int R, int N, class Stream>
[[gnu::noinline]] static void ScoreRest(const char* base, const int64_t* offsets, int keys, int d, int dim,
                                        const float* q, V (&chains)[R][N], Stream& stream) {
  constexpr int kChunk = kLanes * M::kPack;
  constexpr float kQueryScale = KeyUnit<M, T>::kQueryScale;
  constexpr int kStepsALine = kLanes * M::kPack * BytesOf(T) < 64 ? 64 / (kLanes * M::kPack * BytesOf(T)) : 1;
  for (int n = 0; n < N; ++n, offsets += kLanes, keys -= kLanes) {
    V acc[R];
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) acc[r] = chains[r][n];
    const float* step = q;
    for (int c = d; c < dim; c += kChunk) {
      const int left = dim - c;
      const char* at = base + c * BytesOf(T);
      V k[kLanes];
      if (left >= kChunk && keys >= kLanes) {
        REGARD_UNROLL
        for (int t = 0; t < kLanes; ++t) k[t] = M::template LoadDwords<T>(at + offsets[t]);
      } else {
        for (int t = 0; t < kLanes; ++t) {
          k[t] = t >= keys ? Zero() : left >= kChunk ? M::template LoadDwords<T>(at + offsets[t])
                                                     : LoadDwordsPartial<M, T>(at + offsets[t], left);
        }
      }
      if constexpr (kQueryScale != 1.0f) {
        for (int t = 0; t < kLanes; ++t) k[t] = Mul(k[t], Splat(1.0f / kQueryScale));
      }
      Transpose(k);
      if (left >= kChunk) {
        REGARD_UNROLL
        for (int i = 0; i < kLanes; ++i, step += R) {
          if (i % kStepsALine == 0) Next(stream);
          REGARD_UNROLL
          for (int r = 0; r < R; ++r) acc[r] = M::Mac(SplatMem(step + r), k[i], acc[r]);
        }
      } else {
        const int steps = Steps<M>(left);
        for (int i = 0; i < steps; ++i, step += R) {
          for (int r = 0; r < R; ++r) acc[r] = M::Mac(SplatMem(step + r), k[i], acc[r]);
        }
      }
    }
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) chains[r][n] = acc[r];
  }
}

// What a panel of keys is: rows of k, and with qv rows of v, at base + offsets[t].
struct PanelRows {
  const char *k, *v;
  const int64_t *k_offsets, *v_offsets;
  int keys, head_dim, qv_dim;
};

// ScoreTile without a packed panel: scores[r * kScoreStride + key] of R rows. q as packed with KeyUnit's kQueryScale.
// `next` are the rows of the call to come, for `stage`; null: none, or not all of them exist.
template <class M, Elem T, int R, class Stream>
static void ScoreDirect(const PanelRows& rows, const PanelRows* next, KeyStage& stage, const float* q, float* scores,
                        Stream& stream) {
  constexpr int N = KeyUnit<M, T>::kVectors;
  V acc[R][N];
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int n = 0; n < N; ++n) acc[r][n] = Zero();
  }
  int d = 0;
  if constexpr (KeyUnit<M, T>::kSteps > 0) {
    const int units = rows.head_dim * BytesOf(T) / 4 / kUnitDwords;
    if (rows.keys == kScoreKeys<M, T> && units > 0) {
      // Without a next one, the last unit transposes its own first again, for nobody.
      ScoreUnits<M, T>(rows.k, rows.k_offsets, units, next ? next->k : rows.k, next ? next->k_offsets : rows.k_offsets,
                       stage, q, acc, stream);
      d = units * kUnitDwords * 4 / BytesOf(T);
      stage.ready = next != nullptr;
    }
  }
  if (d < rows.head_dim || rows.qv_dim > 0) {
    V rest[R][N];  // a copy, so that acc itself may stay in registers
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      REGARD_UNROLL
      for (int n = 0; n < N; ++n) rest[r][n] = acc[r][n];
    }
    ScoreRest<M, T>(rows.k, rows.k_offsets, rows.keys, d, rows.head_dim, q, rest, stream);
    q += static_cast<int64_t>(Steps<M>(rows.head_dim - d)) * R;
    ScoreRest<M, T>(rows.v, rows.v_offsets, rows.keys, 0, rows.qv_dim, q, rest, stream);  // with qv, v follows k
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      REGARD_UNROLL
      for (int n = 0; n < N; ++n) acc[r][n] = rest[r][n];
    }
  }
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int n = 0; n < N; ++n) Store(scores + r * kScoreStride + n * kLanes, acc[r][n]);
  }
}

// kColumns columns of the values of `keys` keys, in ValueUnit's order of columns. next_head: bytes to what is
// read after it, fetched into L1 meanwhile. kPart: which part of their lines the columns are; `ahead` is kept from
// part to part. Whole turns have no conditions inside: with them GCC kept addresses in memory and in vector registers
// (Zen 4, a group of 4, cycles a line: bf16 5.7 instead of 6.8).
template <class M, Elem T, int R, int kPart, class Stream>
REGARD_INLINE void ValueColumns(const char* base, int64_t next_head, const int64_t* offsets, int keys,
                                const float* probs, float* o, int64_t o_stride, Lines (&ahead)[kValuePanels<M, T>],
                                Stream* streams) {
  using Unit = ValueUnit<M, T>;
  constexpr int kVectors = Unit::kVectors;
  constexpr int kLines = kValueParts<M, T> > 1 ? 1 : M::kPack * Unit::kColumns * BytesOf(T) / 64;  // a step
  constexpr int kTakes = Unit::kTakes, kParts = kValueParts<M, T>;
  constexpr int kTurn = kTakes * kTurnLines / kLines;  // steps
  constexpr int kTurnKeys = kTurn * M::kPack;
  static_assert(kTurnKeys <= kPanelKeys && (kParts == 1 || (kTurnKeys == kPanelKeys && kTakes == 1)));
  const typename Unit::Converter converter{};
  V acc[R][kVectors];
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int j = 0; j < kVectors; ++j) acc[r][j] = Load(o + r * o_stride + j * kLanes);
  }
  const auto multiply = [&](const float* weights, const V (&v)[kVectors]) __attribute__((always_inline)) {
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) {
      const float* const p = weights + r * kScoreStride;
      REGARD_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        acc[r][j] = Unit::kOwnBroadcasts ? M::MacMem(p, v[j], acc[r][j]) : M::Mac(SplatMem(p), v[j], acc[r][j]);
      }
    }
  };
  for (int done = 0; keys >= kTurnKeys; keys -= kTurnKeys, done += kTurnKeys, probs += kTurn, offsets += kTurnKeys) {
    Lines lines[kTakes];
    for (Lines& taken : lines) taken = kPart == 0 ? Take(streams[done / kPanelKeys]) : ahead[done / kPanelKeys];
    if (kPart + 1 < kParts) ahead[done / kPanelKeys] = lines[0];
    asm("" : "+r"(probs), "+r"(offsets));  // or GCC would keep every address of the turn, in memory
    REGARD_UNROLL
    for (int i = 0; i < kTurn; ++i) {
      const int64_t* const at = offsets + i * M::kPack;
      V v[kVectors];
      Unit::LoadColumns(converter, base + at[0], base + at[M::kPack - 1], v);
      if (i % kParts == 0) {
        REGARD_UNROLL
        for (int n = 0; n < kLines; ++n) {
          const int line = (kPart * kTurn + i) / kParts * kLines + n;
          Fetch(lines[line / kTurnLines], line % kTurnLines);
        }
      }
      REGARD_UNROLL
      for (int n = 0; n < kLines && kPart == 0; ++n) {
        PrefetchNear(base + next_head + at[n % M::kPack] + n / M::kPack * 64);
      }
      multiply(probs + i, v);
    }
  }
  for (int t = 0; t < keys; t += M::kPack, ++probs) {
    V v[kVectors];
    Unit::LoadColumns(converter, base + offsets[t], t + 1 < keys ? base + offsets[t + 1] : nullptr, v);
    REGARD_UNROLL
    for (int n = 0; n < kLines && kPart == 0; ++n) Next(streams[0]);
    multiply(probs, v);
  }
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int j = 0; j < kVectors; ++j) Store(o + r * o_stride + j * kLanes, M::Settle(acc[r][j]));
  }
}

// Moves the columns of one row of o between ValueUnit's order, which ValueDirect leaves, and the natural one.
template <class M, Elem T>
static void ReorderColumns(float* o, int dim_v, bool to_natural) {
  using Unit = ValueUnit<M, T>;
  if constexpr (!Unit::kNatural) {
    float from[Unit::kColumns];
    constexpr int kWhole = kValueParts<M, T> * Unit::kColumns;  // ValueDirect takes all parts of a line or none
    for (int c = 0; c < dim_v / kWhole * kWhole; c += Unit::kColumns) {
      memcpy(from, o + c, sizeof from);
      for (int i = 0; i < Unit::kColumns / 4; ++i) {
        const int natural = 4 * Unit::Group(i / (kLanes / 4), i % (kLanes / 4));
        memcpy(o + c + (to_natural ? natural : 4 * i), from + (to_natural ? 4 * i : natural), 16);
      }
    }
  }
}

// One whole panel of 2 * kLanes columns of the values of `keys` keys.
template <class M, Elem T, int R, class Stream>
REGARD_INLINE void ValuePanel(const char* base, const int64_t* offsets, int keys, const float* probs, float* o,
                              int64_t o_stride, Stream& stream) {
  constexpr int kStepsALine = 2 * kLanes * M::kPack * BytesOf(T) < 64 ? 64 / (2 * kLanes * M::kPack * BytesOf(T)) : 1;
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
    if (t % kStepsALine == 0) Next(stream);
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

// AccumulateValues without packed panels; whole units of columns come to lie in ValueUnit's order. Columns that fill no
// whole panel go through `tail` (kPanelKeys * kPanelKeys floats). Values must be finite, or the caller finds out from o
// and starts again. streams: kValuePanels of them.
template <class M, Elem T, int R, class Stream>
static void ValueDirect(const char* base, int64_t next_head, const int64_t* offsets, int keys, int dim_v,
                        const float* probs, float* o, int64_t o_stride, float* tail, Stream* streams) {
  Stream& stream = streams[0];
  int c = 0;
  if constexpr (ValueUnit<M, T>::kColumns > 0) {
    constexpr int kColumns = ValueUnit<M, T>::kColumns, kParts = kValueParts<M, T>;
    Lines ahead[kValuePanels<M, T>] = {};
    for (; c + kParts * kColumns <= dim_v; c += kParts * kColumns, base += kParts * kColumns * BytesOf(T)) {
      ValueColumns<M, T, R, 0>(base, next_head, offsets, keys, probs, o + c, o_stride, ahead, streams);
      if constexpr (kParts == 2) {
        ValueColumns<M, T, R, 1>(base + kColumns * BytesOf(T), next_head, offsets, keys, probs, o + c + kColumns,
                                 o_stride, ahead, streams);
      }
    }
  }
  for (; c + 2 * kLanes <= dim_v; c += 2 * kLanes, base += 2 * kLanes * BytesOf(T)) {
    ValuePanel<M, T, R>(base, offsets, keys, probs, o + c, o_stride, stream);
  }
  if (c == dim_v) return;
  for (; keys > 0; keys -= kPanelKeys, offsets += kPanelKeys, probs += kPanelKeys / M::kPack) {
    const int n = static_cast<int>(Min(keys, kPanelKeys));
    PackValuesAs<M, T>(base, offsets, n, dim_v - c, 0, stream, tail);
    if (dim_v - c > kLanes) {
      ValueTile<M, R, 2>(probs, tail, Steps<M>(n), Start::kKeep, nullptr, o + c, o_stride, stream);
    } else {
      ValueTile<M, R, 1>(probs, tail, Steps<M>(n), Start::kKeep, nullptr, o + c, o_stride, stream);
    }
  }
}

}  // namespace regard::cpu::REGARD_ISA
