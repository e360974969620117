// Packing: the only code that knows element types and strides. Afterwards K lies as panels [step][kPanelKeys] (keys
// side by side), V as panels [key step][2 * kLanes columns], q as [step][rows]; all in dwords, zero where nothing
// exists.
#pragma once

#include "src/cpu/tile/kv_reader.h"

namespace regard::cpu::REGARD_ISA {

// One panel of n <= kPanelKeys rows of `dim` elements at base + offsets[t]: dst[step][key]. Writes whole vectors:
// room for RoundUp(steps, kLanes) steps. Calls Next(stream) once a vector.
template <class M, Elem T, class Stream>
static void PackKeysAs(const char* base, const int64_t* offsets, int n, int dim, Stream& stream, float* dst) {
  constexpr int kChunk = kLanes * M::kPack;  // elements of one vector of dwords
  const int bytes = T == Elem::kF32 ? 4 : T == Elem::kF16 || T == Elem::kBF16 ? 2 : 1;
  for (int d = 0; d < dim; d += kChunk, dst += kLanes * kPanelKeys) {
    for (int half = 0; half < 2; ++half) {
      V r[kLanes];
      const int64_t* row = offsets + half * kLanes;
      const int left = n - half * kLanes;
      if (dim - d >= kChunk && left >= kLanes) {
        REGARD_UNROLL
        for (int t = 0; t < kLanes; ++t) {
          r[t] = M::template LoadDwords<T>(base + row[t] + d * bytes);
          Next(stream);
        }
      } else {
        for (int t = 0; t < kLanes; ++t) {
          r[t] = t >= left             ? Zero()
                 : dim - d >= kChunk ? M::template LoadDwords<T>(base + row[t] + d * bytes)
                                     : LoadDwordsPartial<M, T>(base + row[t] + d * bytes, dim - d);
        }
      }
      Transpose(r);
      REGARD_UNROLL
      for (int i = 0; i < kLanes; ++i) Store(dst + i * kPanelKeys + half * kLanes, r[i]);
    }
  }
}

// Rows [0, n) of `dim` columns at base + offsets[t] into column panels dst[panel][row step][2 * kLanes], a panel being
// `panel_floats` apart; rows are padded with zeros to a multiple of kPack. Returns a vector that is 0 exactly when
// every element was finite. Calls Next(stream) once a vector.
template <class M, Elem T, class Stream>
static V PackValuesAs(const char* base, const int64_t* offsets, int n, int dim, int64_t panel_floats, Stream& stream,
                      float* dst) {
  const int bytes = T == Elem::kF32 ? 4 : T == Elem::kF16 || T == Elem::kBF16 ? 2 : 1;
  V finite[2] = {Zero(), Zero()};  // two chains: one would take longer than the stores
  for (int t = 0; t < n; t += M::kPack) {
    float* row = dst + t / M::kPack * 2 * kLanes;
    const char* first = base + offsets[t];
    for (int c = 0; c < dim; c += 2 * kLanes, row += panel_floats) {
      if constexpr (M::kPack == 1) {
        for (int v = 0; v < 2; ++v) {
          const int64_t left = dim - c - v * kLanes;
          const char* from = first + (c + v * kLanes) * bytes;
          const V x = left >= kLanes ? M::template LoadDwords<T>(from)
                      : left > 0     ? LoadDwordsPartial<M, T>(from, left)
                                     : Zero();
          finite[v] = M::Mac(x, Zero(), finite[v]);
          Next(stream);
          Store(row + v * kLanes, x);
        }
      } else {
#ifdef REGARD_HAS_BF16_PAIRS
        const int64_t left = dim - c;
        const bool whole = left >= 2 * kLanes;
        const V a = whole ? M::template LoadDwords<T>(first + c * bytes)
                          : LoadDwordsPartial<M, T>(first + c * bytes, left);
        V b = Zero();
        if (t + 1 < n) {
          const char* second = base + offsets[t + 1];
          b = whole ? M::template LoadDwords<T>(second + c * bytes)
                    : LoadDwordsPartial<M, T>(second + c * bytes, left);
        }
        finite[0] = M::Mac(a, Zero(), finite[0]);
        finite[1] = M::Mac(b, Zero(), finite[1]);
        Next(stream);
        Next(stream);
        V o0, o1;
        Interleave(a, b, &o0, &o1);
        Store(row, o0);
        Store(row + kLanes, o1);
#endif
      }
    }
  }
  return Add(finite[0], finite[1]);
}

template <class M, class Stream>
static void PackKeys(Elem type, const char* base, const int64_t* offsets, int n, int dim, Stream& stream, float* dst) {
  WithElem(type, [&](auto t) { PackKeysAs<M, decltype(t)::value>(base, offsets, n, dim, stream, dst); });
}
template <class M, class Stream>
static V PackValues(Elem type, const char* base, const int64_t* offsets, int n, int dim, int64_t panel_floats,
                    Stream& stream, float* dst) {
  V finite = Zero();
  WithElem(type, [&](auto t) {
    finite = PackValuesAs<M, decltype(t)::value>(base, offsets, n, dim, panel_floats, stream, dst);
  });
  return finite;
}

// Query rows at from[0 .. rows), `dim` elements each, into a tile: dst[step * rows + r]; f32 values times `factor`,
// where it is not 1 (fp8 qv: the ratio of the two descales; KeyUnit's kQueryScale). Overruns the tile by less than
// kLanes floats, so tiles are packed in ascending order.
template <class M, Elem T>
static void PackQueriesAs(const char* const* from, int rows, int dim, float factor, float* dst) {
  constexpr int kChunk = kLanes * M::kPack;
  for (int d = 0; d < dim; d += kChunk) {
    const int steps = Steps<M>(Min(dim - d, kChunk));
    // The last group of rows may be cut; what its stores spill into the next step is written after them.
    for (int first = (rows - 1) / kLanes * kLanes; first >= 0; first -= kLanes) {
      V x[kLanes];
      for (int t = 0; t < kLanes; ++t) {
        if (first + t >= rows) {
          x[t] = Zero();
          continue;
        }
        const char* at = from[first + t] + d * BytesOf(T);
        x[t] = dim - d >= kChunk ? M::template LoadDwords<T>(at) : LoadDwordsPartial<M, T>(at, dim - d);
        if (M::kPack == 1 && factor != 1.0f) x[t] = Mul(x[t], Splat(factor));
      }
      Transpose(x);
      for (int i = 0; i < steps; ++i) Store(dst + (d / M::kPack + i) * rows + first, x[i]);
    }
  }
}
#ifdef REGARD_HAS_HALVES
// Two tiles of kLanes / 2 rows each, `tile_floats` apart, the first row of both at from[0]; `dim` in whole vectors of
// dwords. Alone, half of each vector that a tile's transpose shuffles and stores would be the next step's.
template <class M, Elem T>
static void PackTwoTilesAs(const char* const* from, int dim, int64_t tile_floats, float* dst) {
  for (int d = 0; d < dim; d += kLanes * M::kPack) {
    V x[kLanes];
    REGARD_UNROLL
    for (int t = 0; t < kLanes; ++t) x[t] = M::template LoadDwords<T>(from[t] + d * BytesOf(T));
    Transpose(x);
    REGARD_UNROLL
    for (int i = 0; i < kLanes; i += 2, dst += kLanes) {
      V low, high;
      Halves(x[i], x[i + 1], &low, &high);
      Store(dst, low);
      Store(dst + tile_floats, high);
    }
  }
}
#endif
template <class M>
static void PackQueryRows(Elem type, const char* const* from, int rows, int dim, float factor, float* dst) {
  WithElem(type, [&](auto t) { PackQueriesAs<M, decltype(t)::value>(from, rows, dim, factor, dst); });
}

}  // namespace regard::cpu::REGARD_ISA
