// The vector contract (simd/vec.h) in AVX-512 F, BW, DQ, VL; with AVX512-BF16 also the pair functions.
#pragma once

#include <immintrin.h>

#include "src/cpu/simd/vec.h"

namespace regard::cpu::REGARD_ISA {

#define REGARD_UNITS "src/cpu/simd/avx512_units.h"
inline constexpr int kLanes = 16;
inline constexpr int kTileRows = 12;  // 12 x 2 accumulators + 2 panel vectors + 1 broadcast = 27 of 32 registers
using V = __m512;

static inline V Zero() { return _mm512_setzero_ps(); }
static inline V Splat(float x) { return _mm512_set1_ps(x); }
static inline V SplatMem(const float* p) { return _mm512_set1_ps(*p); }
static inline V Load(const float* p) { return _mm512_loadu_ps(p); }
static inline void Store(float* p, V v) { _mm512_storeu_ps(p, v); }
static inline V Fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
#define REGARD_HAS_MEMORY_BROADCAST 1
#define REGARD_HAS_HALVES 1
static inline V FmaMem(const float* a, V b, V c) {
  asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(c) : "v"(b), "m"(*a));
  return c;
}
static inline V Add(V a, V b) { return _mm512_add_ps(a, b); }
static inline V Sub(V a, V b) { return _mm512_sub_ps(a, b); }
static inline V Mul(V a, V b) { return _mm512_mul_ps(a, b); }
static inline V Div(V a, V b) { return _mm512_div_ps(a, b); }
static inline V Max(V a, V b) { return _mm512_max_ps(a, b); }
static inline V Abs(V a) { return _mm512_abs_ps(a); }

// 2^floor(y) * 2^(y - floor(y)). vreduceps gives the fraction (0 for an infinity, NaN for NaN), vscalefps floors y
// itself, underflows gradually and makes 0 of -inf: no clamp, no rounding of y apart.
static inline V Exp2(V y) {
  const V f = _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  V r = Fma(f, Splat(kExp2UnitC5), Splat(kExp2UnitC4));
  r = Fma(f, r, Splat(kExp2UnitC3));
  r = Fma(f, r, Splat(kExp2UnitC2));
  r = Fma(f, r, Splat(kExp2UnitC1));
  r = Fma(f, r, Splat(1.0f));
  return _mm512_scalef_ps(r, y);
}

static inline V MarkMasked(V x, V p) {
  const __mmask16 masked = _mm512_cmp_ps_mask(x, Splat(-__builtin_inff()), _CMP_EQ_OQ);
  return _mm512_mask_mov_ps(p, masked, Splat(-0.0f));
}
static inline V SelectLess(V a, V b, V t, V f) {
  return _mm512_mask_mov_ps(f, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), t);
}
static inline V CanonicalNan(V x) {
  const V nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000));
  return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), nan);
}

static inline V SplatBits(uint32_t x) { return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(x))); }
static inline V AddBits(V a, V b) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
static inline V AndBits(V a, V b) {
  return _mm512_castsi512_ps(_mm512_and_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
static inline V Xor(V a, V b, V c) {
  const __m512i x = _mm512_castps_si512(a), y = _mm512_castps_si512(b);
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(x, y, _mm512_castps_si512(c), 0x96));
}
static inline V MulEven(V a, V b) {
  return _mm512_castsi512_ps(_mm512_mul_epu32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
static inline V OddToEven(V a) { return _mm512_castsi512_ps(_mm512_srli_epi64(_mm512_castps_si512(a), 32)); }
static inline V MergeEven(V a, V b) { return _mm512_mask_moveldup_ps(a, 0xaaaa, b); }
static inline void ZipPairs(V a, V b, V* even, V* odd) {
  const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
  *even = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
  *odd = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
}
static inline V KeepFrom(V x, V low, V v) {
  return _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(_mm512_castps_si512(x), _mm512_castps_si512(low)), v);
}

// Halves, quarters, pairs, neighbours.
static inline float ReduceAdd(V v) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
static inline float ReduceMax(V v) {
  const __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

static inline void Halves(V a, V b, V* low, V* high) {
  *low = _mm512_shuffle_f32x4(a, b, 0x44);
  *high = _mm512_shuffle_f32x4(a, b, 0xee);
}
// 16 x 16 dwords: 32-bit, 64-bit, then twice 128-bit interleaves (64 shuffles).
static inline void Transpose(V r[16]) {
  V t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int h = 0; h < 2; ++h) {
      const __m512d a = _mm512_castps_pd(t[i + h]), b = _mm512_castps_pd(t[i + h + 2]);
      r[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      r[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
  for (int i = 0; i < 16; i += 8) {
    for (int c = 0; c < 4; ++c) {
      t[i + c] = _mm512_shuffle_f32x4(r[i + c], r[i + c + 4], 0x88);
      t[i + c + 4] = _mm512_shuffle_f32x4(r[i + c], r[i + c + 4], 0xdd);
    }
  }
  for (int c = 0; c < 8; ++c) {
    r[c] = _mm512_shuffle_f32x4(t[c], t[c + 8], 0x88);
    r[c + 8] = _mm512_shuffle_f32x4(t[c], t[c + 8], 0xdd);
  }
}

static inline V LoadF16(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p))); }
static inline V LoadBF16(const void* p) {
  const __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}
// E4M3: exponent and mantissa moved under f32's exponent field, then times 2^(127 - 7): exact, subnormals included.
static inline V LoadE4M3(const void* p) {
  const __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  const __m512i magnitude = _mm512_and_si512(x, _mm512_set1_epi32(0x7f));
  const V value = Mul(_mm512_castsi512_ps(_mm512_slli_epi32(magnitude, 20)), Splat(0x1p120f));
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(magnitude, _mm512_set1_epi32(0x7f));
  const __m512i bits = _mm512_mask_mov_epi32(_mm512_castps_si512(value), nan, _mm512_set1_epi32(0x7fc00000));
  const __m512i sign = _mm512_slli_epi32(_mm512_and_si512(x, _mm512_set1_epi32(0x80)), 24);
  return _mm512_castsi512_ps(_mm512_or_si512(bits, sign));
}
static inline V LoadE5M2(const void* p) {
  const __m256i x = _mm256_cvtepu8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  return _mm512_cvtph_ps(_mm256_slli_epi16(x, 8));
}

static inline void StoreF16(void* p, V v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtps_ph(CanonicalNan(v), _MM_FROUND_TO_NEAREST_INT));
}
// By integer rounding: vcvtneps2bf16 would flush denormals.
static inline __m256i RoundBF16(V v) {
  const __m512i x = _mm512_castps_si512(CanonicalNan(v));
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(1));
  const __m512i r = _mm512_add_epi32(x, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
}
static inline void StoreBF16(void* p, V v) { _mm256_storeu_si256(static_cast<__m256i*>(p), RoundBF16(v)); }

[[gnu::always_inline]] static inline void PrefetchFar(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
}
[[gnu::always_inline]] static inline void PrefetchNear(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

#ifdef __AVX512BF16__
#define REGARD_HAS_BF16_PAIRS 1
static inline V DotPairs(V acc, V a, V b) {
  return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}
static inline V DotPairsMem(V acc, const float* a, V b) {
  asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(b), "m"(*a));
  return acc;
}
// fp8 to bf16 in 16-bit lanes: exponent and mantissa (7 bits) move up under bf16's, plus the difference of the biases;
// the few subnormals come from a table, NaN (and infinity) from comparisons.
template <int kShift, int kBias>
static inline V PairsOfFp8(const void* p, const uint16_t (&subnormals)[8], int first_normal, int first_special,
                           int special) {
  const __m512i x = _mm512_cvtepu8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  const __m512i m = _mm512_and_si512(x, _mm512_set1_epi16(0x7f));
  __m512i r = _mm512_add_epi16(_mm512_slli_epi16(m, kShift), _mm512_set1_epi16(kBias));
  const __m512i table = _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(subnormals)));
  const __mmask32 small = _mm512_cmplt_epi16_mask(m, _mm512_set1_epi16(static_cast<short>(first_normal)));
  r = _mm512_mask_permutexvar_epi16(r, small, m, table);
  const __mmask32 nan = _mm512_cmpgt_epi16_mask(m, _mm512_set1_epi16(static_cast<short>(first_special)));
  r = _mm512_mask_mov_epi16(r, nan, _mm512_set1_epi16(0x7fc0));
  if (special >= 0) {
    const __mmask32 infinite = _mm512_cmpeq_epi16_mask(m, _mm512_set1_epi16(static_cast<short>(special)));
    r = _mm512_mask_mov_epi16(r, infinite, _mm512_set1_epi16(0x7f80));
  }
  const __m512i sign = _mm512_slli_epi16(_mm512_srli_epi16(x, 7), 15);
  return _mm512_castsi512_ps(_mm512_or_si512(r, sign));
}
static inline V PairsE4M3(const void* p) {
  // n * 2^-9 for n = 0..7.
  static const uint16_t kSubnormals[8] = {0x0000, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60};
  return PairsOfFp8<4, (127 - 7) << 7>(p, kSubnormals, 8, 0x7e, -1);
}
static inline V PairsE5M2(const void* p) {
  // n * 2^-16 for n = 0..3.
  static const uint16_t kSubnormals[8] = {0x0000, 0x3780, 0x3800, 0x3840, 0, 0, 0, 0};
  return PairsOfFp8<5, (127 - 15) << 7>(p, kSubnormals, 4, 0x7c, 0x7c);
}
static inline V PackPairs(V a, V b) { return _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(b, a)); }
static inline V PairRows(V a, V b) {
  alignas(64) static const uint16_t kZip[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_load_si512(kZip), (__m512i)_mm512_cvtne2ps_pbh(b, a)));
}
static inline void Interleave(V r0, V r1, V* o0, V* o1) {
  alignas(64) static const uint16_t kLow[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i low = _mm512_load_si512(kLow);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  const __m512i a = _mm512_castps_si512(r0), b = _mm512_castps_si512(r1);
  *o0 = _mm512_castsi512_ps(_mm512_permutex2var_epi16(a, low, b));
  *o1 = _mm512_castsi512_ps(_mm512_permutex2var_epi16(a, high, b));
}
#endif

}  // namespace regard::cpu::REGARD_ISA
