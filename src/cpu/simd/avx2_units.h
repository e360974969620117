// What decode reads straight from a cache, in AVX2: K transposed 8 keys by 8 dwords at a time, V as it lies. The
// vocabulary is that of simd/avx512_units.h.
#pragma once

#include "src/cpu/simd/units.h"

namespace regard::cpu::REGARD_ISA {

// 8 keys by 8 dwords every fourth slice. Cycles a line of K from L2 (Zen 4, a group of 4): f32 10.1, bf16 13.5. 4 keys
// by 8 dwords, stored by halves, need fewer shuffles, twice the stores: 10.1 and 13.9. Halves of two keys loaded into
// one vector need twice the loads: 11.6 and 14.1.
struct Transposer {
  template <class Unit, class Flags>
  REGARD_INLINE void SliceAs(int i, const char* base, const int64_t* offsets, Flags& seen, float* to) {
    if (i % 4 != 0) return;
    constexpr int kKeys = Unit::kVectors * kLanes;
    const int rows = i / 8 * kLanes, dwords = i / 4 % 2 * kLanes;
    V x[kLanes];
    REGARD_UNROLL
    for (int r = 0; r < kLanes; ++r) {
      x[r] = Load(reinterpret_cast<const float*>(base + offsets[rows + r]) + dwords);
      seen = Unit::Note(seen, x[r]);
    }
    Transpose(x);
    REGARD_UNROLL
    for (int j = 0; j < kLanes; ++j) Store(to + (dwords + j) * kKeys + rows, x[j]);
  }
};

// Nothing to remember.
template <int kChainSteps>
struct CarelessUnit : Transposer {
  using Converter = NoConverter;
  static constexpr int kSteps = kChainSteps, kVectors = 2;
  static constexpr int kOwnBroadcasts = 0;
  static constexpr float kQueryScale = 1.0f;
  struct Flags {};
  REGARD_INLINE Flags None() { return {}; }
  REGARD_INLINE Flags Note(Flags, V) { return {}; }
  REGARD_INLINE bool Check(Flags) { return false; }
  REGARD_INLINE void Slice(int i, const char* base, const int64_t* offsets, V (&)[16], Flags& seen, float* to) {
    SliceAs<CarelessUnit>(i, base, offsets, seen, to);
  }
};

template <>
struct KeyUnit<MathF32, Elem::kF32> : CarelessUnit<1> {
  REGARD_INLINE void Expand(const Converter&, V x, bool, V (&y)[1]) { y[0] = x; }
};

template <>
struct KeyUnit<MathF32, Elem::kBF16> : CarelessUnit<2> {
  REGARD_INLINE void Expand(const Converter&, V x, bool, V (&y)[2]) {
    const __m256i bits = _mm256_castps_si256(x);
    y[0] = _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
    y[1] = _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
};

// f16 under f32's fields as in AVX-512: k * 2^-112, subnormals included. Infinity and NaN are converted the long way:
// 0x7c00 and above as a signed number, 0xfc00 and above as an unsigned one.
template <>
struct KeyUnit<MathF32, Elem::kF16> : Transposer {
  static constexpr int kSteps = 2, kVectors = 2;
  static constexpr int kOwnBroadcasts = 0;
  static constexpr float kQueryScale = 0x1p112f;
  using Converter = NoConverter;
  struct Flags {
    __m256i most, most_unsigned;
  };
  REGARD_INLINE Flags None() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  REGARD_INLINE Flags Note(Flags seen, V x) {
    const __m256i bits = _mm256_castps_si256(x);
    return {_mm256_max_epi16(seen.most, bits), _mm256_max_epu16(seen.most_unsigned, bits)};
  }
  REGARD_INLINE bool Check(Flags seen) {
    const __m256i positive = _mm256_cmpgt_epi16(seen.most, _mm256_set1_epi16(0x7bff));
    const __m256i least = _mm256_set1_epi16(static_cast<short>(0xfc00));
    const __m256i negative = _mm256_cmpeq_epi16(_mm256_max_epu16(seen.most_unsigned, least), seen.most_unsigned);
    return _mm256_movemask_epi8(_mm256_or_si256(positive, negative)) != 0;
  }
  REGARD_INLINE void Slice(int i, const char* base, const int64_t* offsets, V (&)[16], Flags& seen, float* to) {
    SliceAs<KeyUnit>(i, base, offsets, seen, to);
  }
  // dwords of one f16 each
  [[gnu::noinline]] static V Convert(__m256i x) {
    const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    return Mul(_mm256_cvtph_ps(halves), Splat(0x1p-112f));
  }
  REGARD_INLINE void Expand(const Converter&, V x, bool care, V (&y)[2]) {
    const __m256i bits = _mm256_castps_si256(x), keep = _mm256_set1_epi32(static_cast<int>(0x8fffe000u));
    if (care) [[unlikely]] {
      y[0] = Convert(_mm256_and_si256(bits, _mm256_set1_epi32(0xffff)));
      y[1] = Convert(_mm256_srli_epi32(bits, 16));
      return;
    }
    y[0] = _mm256_castsi256_ps(_mm256_and_si256(_mm256_srai_epi32(_mm256_slli_epi32(bits, 16), 3), keep));
    y[1] = _mm256_castsi256_ps(_mm256_and_si256(_mm256_srai_epi32(bits, 3), keep));
  }
};

// As in AVX-512. Cycles a line from L2 with 16, 32, 64 keys (Zen 4, a group of 4): f32 7.1, 6.9, 6.9, bf16 11.9, -, 10.9,
// f16 12.6, -, 11.1. From memory fewer are better: 2 threads, ms of all V of 32k tokens of 8 heads of 128 with 16, 32, 64
// keys, bf16 1.91, 2.00, 2.29, f16 1.93, 2.11, 2.33; f32 4.0, 3.7, -.
template <>
struct ValueUnit<MathF32, Elem::kF32> : NaturalColumns {
  static constexpr int kColumns = 16, kVectors = 2, kKeys = 32, kTakes = 1;
  static constexpr bool kOwnBroadcasts = false;
  REGARD_INLINE void LoadColumns(const Converter&, const char* a, const char*, V (&v)[2]) {
    v[0] = Load(reinterpret_cast<const float*>(a));
    v[1] = Load(reinterpret_cast<const float*>(a) + kLanes);
  }
};
template <>
struct ValueUnit<MathF32, Elem::kF16> : NaturalColumns {
  static constexpr int kColumns = 16, kVectors = 2, kKeys = 16, kTakes = 1;
  static constexpr bool kOwnBroadcasts = false;
  REGARD_INLINE void LoadColumns(const Converter&, const char* a, const char*, V (&v)[2]) {
    v[0] = LoadF16(a);
    v[1] = LoadF16(a + 16);
  }
};
template <>
struct ValueUnit<MathF32, Elem::kBF16> {
  static constexpr int kColumns = 16, kVectors = 2, kKeys = 16, kTakes = 1;
  static constexpr bool kOwnBroadcasts = false;
  static constexpr bool kNatural = false;
  static constexpr int Group(int j, int l) { return 2 * l + j; }
  using Converter = NoConverter;
  REGARD_INLINE void LoadColumns(const Converter&, const char* a, const char*, V (&v)[2]) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)), zero = _mm256_setzero_si256();
    v[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, x));
    v[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, x));
  }
};

}  // namespace regard::cpu::REGARD_ISA
