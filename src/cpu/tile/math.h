// The two element arithmetics. A packed element is one 32-bit pattern ("dword"): one f32, or a pair of neighbouring
// bf16. Everything above works in dwords and in Steps(n) = dwords that n elements fill; a dot product is one chain of
// Mac over them, in order: the law for prefill and decode alike.
#pragma once

#include "src/cpu/params.h"
#include "src/cpu/simd/vec.h"

#if defined(__clang__)
#define REGARD_UNROLL _Pragma("unroll")
#else
#define REGARD_UNROLL _Pragma("GCC unroll 16")
#endif
#define REGARD_ALWAYS_INLINE [[gnu::always_inline]] inline
#define REGARD_INLINE [[gnu::always_inline]] static inline

namespace regard::cpu::REGARD_ISA {

inline constexpr int kPanelKeys = 2 * kLanes;  // keys packed side by side: the score tile's width
// Floats between rows of a tile's scores: off the power of two, so that 12 rows do not meet in a few sets of L1.
inline constexpr int kScoreStride = kBlockTokens + kPanelKeys;
inline constexpr int kMaxTileRows = kTileRows > kLanes ? 2 * kLanes : kLanes;  // whole vectors of a value per row
static_assert(kTileRows <= kMaxTileRows);
inline constexpr float kLog2E = 0x1.715476p+0f;
inline constexpr float kMinusInf = -__builtin_inff();

static inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int RoundUp(int64_t n, int m) { return static_cast<int>((n + m - 1) / m * m); }
static constexpr int BytesOf(Elem t) { return t == Elem::kF32 ? 4 : t == Elem::kF16 || t == Elem::kBF16 ? 2 : 1; }

template <Elem T>
REGARD_INLINE V LoadF32(const char* p) {
  if constexpr (T == Elem::kF32) return Load(reinterpret_cast<const float*>(p));
  if constexpr (T == Elem::kF16) return LoadF16(p);
  if constexpr (T == Elem::kBF16) return LoadBF16(p);
  if constexpr (T == Elem::kF8E4M3) return LoadE4M3(p);
  if constexpr (T == Elem::kF8E5M2) return LoadE5M2(p);
}

// f32 products of anything that converts to f32 exactly.
struct MathF32 {
  static constexpr int kPack = 1;
  template <Elem T>
  REGARD_INLINE V LoadDwords(const char* p) { return LoadF32<T>(p); }
  REGARD_INLINE V Mac(V a, V b, V acc) { return Fma(a, b, acc); }
  // Mac(SplatMem(a), b, acc), each by its own broadcast where the instruction set has that.
#ifdef REGARD_HAS_MEMORY_BROADCAST
  REGARD_INLINE V MacMem(const float* a, V b, V acc) { return FmaMem(a, b, acc); }
#else
  REGARD_INLINE V MacMem(const float* a, V b, V acc) { return Fma(SplatMem(a), b, acc); }
#endif
  REGARD_INLINE V Settle(V acc) { return acc; }
};

#ifdef REGARD_HAS_BF16_PAIRS
// bf16 products, two at a time: bf16 and fp8 inputs (fp8 converts to bf16 exactly).
struct MathPairs {
  static constexpr int kPack = 2;
  template <Elem T>
  REGARD_INLINE V LoadDwords(const char* p) {
    if constexpr (T == Elem::kBF16) return Load(reinterpret_cast<const float*>(p));
    if constexpr (T == Elem::kF8E4M3) return PairsE4M3(p);
    if constexpr (T == Elem::kF8E5M2) return PairsE5M2(p);
    return Zero();
  }
  REGARD_INLINE V Mac(V a, V b, V acc) { return DotPairs(acc, a, b); }
  REGARD_INLINE V MacMem(const float* a, V b, V acc) { return DotPairsMem(acc, a, b); }
  // DotPairs flushes a denormal accumulator, so one more step with a masked key would change it: flush at every store.
  REGARD_INLINE V Settle(V acc) { return DotPairs(acc, Zero(), Zero()); }
};
#endif

template <class M>
constexpr int Steps(int64_t elements) {
  return static_cast<int>((elements + M::kPack - 1) / M::kPack);
}

// kLanes dwords of which only the first n elements exist; the rest read as 0.
template <class M, Elem T>
static V LoadDwordsPartial(const char* p, int64_t n) {
  alignas(64) char copy[kLanes * 4];
  memset(copy, 0, sizeof copy);
  memcpy(copy, p, static_cast<size_t>(n) * (T == Elem::kF32 ? 4 : T == Elem::kF16 || T == Elem::kBF16 ? 2 : 1));
  return M::template LoadDwords<T>(copy);
}

// Adds up the time of each phase of a task, where somebody asked for it.
static inline uint64_t Ticks() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t t;
  asm volatile("mrs %0, cntvct_el0" : "=r"(t));
  return t;
#else
  return 0;
#endif
}
struct PhaseClock {
  uint64_t* ticks;  // kPhases counters; null: off
  uint64_t last;
  REGARD_ALWAYS_INLINE explicit PhaseClock(uint64_t* counters) : ticks(counters), last(counters ? Ticks() : 0) {}
  REGARD_ALWAYS_INLINE void Lap(PhaseTicks phase) {
    if (!ticks) return;
    const uint64_t now = Ticks();
    ticks[phase] += now - last;
    last = now;
  }
};

// Calls f with a compile-time row count: rows in [1, R].
template <int R>
struct RowCount {
  static constexpr int value = R;
};
template <int R, class F>
REGARD_INLINE void WithRows(int rows, F&& f) {
  if constexpr (R > 1) {
    if (rows < R) return WithRows<R - 1>(rows, f);
  }
  f(RowCount<R>{});
}

// Calls f with the element type as a compile-time value.
template <Elem T>
struct ElemType {
  static constexpr Elem value = T;
};
template <class F>
REGARD_INLINE void WithElem(Elem t, F&& f) {
  switch (t) {
    case Elem::kF32: return f(ElemType<Elem::kF32>{});
    case Elem::kF16: return f(ElemType<Elem::kF16>{});
    case Elem::kBF16: return f(ElemType<Elem::kBF16>{});
    case Elem::kF8E4M3: return f(ElemType<Elem::kF8E4M3>{});
    case Elem::kF8E5M2: return f(ElemType<Elem::kF8E5M2>{});
  }
}

}  // namespace regard::cpu::REGARD_ISA
