// The vector contract (simd/vec.h) in AVX2 + FMA + F16C.
#pragma once

#include <immintrin.h>

#include "src/cpu/simd/vec.h"

namespace regard::cpu::REGARD_ISA {

#define REGARD_UNITS "src/cpu/simd/avx2_units.h"
inline constexpr int kLanes = 8;
inline constexpr int kTileRows = 6;  // 6 x 2 accumulators + 2 panel vectors + 1 broadcast = 15 of 16 registers
using V = __m256;

static inline V Zero() { return _mm256_setzero_ps(); }
static inline V Splat(float x) { return _mm256_set1_ps(x); }
static inline V SplatMem(const float* p) { return _mm256_broadcast_ss(p); }
static inline V Load(const float* p) { return _mm256_loadu_ps(p); }
static inline void Store(float* p, V v) { _mm256_storeu_ps(p, v); }
static inline V Fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
static inline V Add(V a, V b) { return _mm256_add_ps(a, b); }
static inline V Sub(V a, V b) { return _mm256_sub_ps(a, b); }
static inline V Mul(V a, V b) { return _mm256_mul_ps(a, b); }
static inline V Div(V a, V b) { return _mm256_div_ps(a, b); }
static inline V Max(V a, V b) { return _mm256_max_ps(a, b); }
static inline V Abs(V a) { return _mm256_andnot_ps(Splat(-0.0f), a); }

// Below 2^-126 the result is 0. max_ps(a, b) gives b for a NaN operand, so NaN passes.
static inline V Exp2(V y) {
  const V floor = Splat(-126.0f);
  const V z = _mm256_max_ps(floor, y);
  const V n = _mm256_round_ps(z, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const V f = Sub(z, n);
  V r = Fma(f, Splat(kExp2C5), Splat(kExp2C4));
  r = Fma(f, r, Splat(kExp2C3));
  r = Fma(f, r, Splat(kExp2C2));
  r = Fma(f, r, Splat(kExp2C1));
  r = Fma(f, r, Splat(1.0f));
  const __m256i scale = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  r = Mul(r, _mm256_castsi256_ps(scale));
  return _mm256_blendv_ps(r, Zero(), _mm256_cmp_ps(y, floor, _CMP_LT_OQ));
}

static inline V MarkMasked(V x, V p) {
  return _mm256_blendv_ps(p, Splat(-0.0f), _mm256_cmp_ps(x, Splat(-__builtin_inff()), _CMP_EQ_OQ));
}
static inline V SelectLess(V a, V b, V t, V f) { return _mm256_blendv_ps(f, t, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
static inline V CanonicalNan(V x) {
  return _mm256_blendv_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)), _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

static inline V SplatBits(uint32_t x) { return _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(x))); }
static inline V AddBits(V a, V b) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}
static inline V AndBits(V a, V b) { return _mm256_and_ps(a, b); }
static inline V Xor(V a, V b, V c) { return _mm256_xor_ps(_mm256_xor_ps(a, b), c); }
static inline V MulEven(V a, V b) {
  return _mm256_castsi256_ps(_mm256_mul_epu32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}
static inline V OddToEven(V a) { return _mm256_castsi256_ps(_mm256_srli_epi64(_mm256_castps_si256(a), 32)); }
static inline V MergeEven(V a, V b) { return _mm256_blend_ps(a, _mm256_moveldup_ps(b), 0xaa); }
static inline void ZipPairs(V a, V b, V* even, V* odd) {
  const __m256d x = _mm256_castps_pd(a), y = _mm256_castps_pd(b);
  *even = _mm256_castpd_ps(_mm256_unpacklo_pd(x, y));
  *odd = _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
}
static inline V KeepFrom(V x, V low, V v) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i keeps = _mm256_cmpeq_epi32(_mm256_max_epu32(bits, _mm256_castps_si256(low)), bits);
  return _mm256_and_ps(_mm256_castsi256_ps(keeps), v);
}

static inline float ReduceAdd(V v) {
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
static inline float ReduceMax(V v) {
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

#define REGARD_HAS_HALVES 1
static inline void Halves(V a, V b, V* low, V* high) {
  *low = _mm256_permute2f128_ps(a, b, 0x20);
  *high = _mm256_permute2f128_ps(a, b, 0x31);
}
static inline void Transpose(V r[8]) {
  V t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int h = 0; h < 2; ++h) {
      r[i + 2 * h] = _mm256_shuffle_ps(t[i + h], t[i + h + 2], 0x44);
      r[i + 2 * h + 1] = _mm256_shuffle_ps(t[i + h], t[i + h + 2], 0xee);
    }
  }
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm256_permute2f128_ps(r[c], r[c + 4], 0x20);
    t[c + 4] = _mm256_permute2f128_ps(r[c], r[c + 4], 0x31);
  }
  for (int c = 0; c < 8; ++c) r[c] = t[c];
}

static inline V LoadF16(const void* p) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
static inline V LoadBF16(const void* p) {
  const __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}
// As in simd/avx512.h.
static inline V LoadE4M3(const void* p) {
  const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
  const __m256i magnitude = _mm256_and_si256(x, _mm256_set1_epi32(0x7f));
  const V value = Mul(_mm256_castsi256_ps(_mm256_slli_epi32(magnitude, 20)), Splat(0x1p120f));
  const __m256i is_nan = _mm256_cmpeq_epi32(magnitude, _mm256_set1_epi32(0x7f));
  const V bits = _mm256_blendv_ps(value, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)),
                                  _mm256_castsi256_ps(is_nan));
  const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(x, _mm256_set1_epi32(0x80)), 24);
  return _mm256_or_ps(bits, _mm256_castsi256_ps(sign));
}
static inline V LoadE5M2(const void* p) {
  const __m128i x = _mm_cvtepu8_epi16(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
  return _mm256_cvtph_ps(_mm_slli_epi16(x, 8));
}

static inline void StoreF16(void* p, V v) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_cvtps_ph(CanonicalNan(v), _MM_FROUND_TO_NEAREST_INT));
}
static inline void StoreBF16(void* p, V v) {
  const __m256i x = _mm256_castps_si256(CanonicalNan(v));
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), _mm256_set1_epi32(1));
  const __m256i r = _mm256_srli_epi32(_mm256_add_epi32(x, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
  _mm_storeu_si128(static_cast<__m128i*>(p), packed);
}

[[gnu::always_inline]] static inline void PrefetchFar(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
}
[[gnu::always_inline]] static inline void PrefetchNear(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

}  // namespace regard::cpu::REGARD_ISA
