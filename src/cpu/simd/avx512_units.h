// What decode reads straight from a cache, in AVX-512: K transposed in registers, V in pairs of keys. A dword of a row
// holds 1 f32, 2 f16, 2 bf16 or 4 fp8; keys are transposed as dwords, whatever is in them, and taken apart afterwards,
// so that narrow types cost fewer shuffles an element.
#pragma once

#include "src/cpu/simd/units.h"

namespace regard::cpu::REGARD_ISA {

// KeyUnit<M, T>: how rows of dwords become operands of the chains.
//   kSteps               chain steps a dword; 0: this type takes the general way
//   kVectors             vectors of keys at once. One reads 16 token rows side by side, two read 32, which memory answers
//                        slower: Zen 4, one thread, 32k tokens of 8 heads of 128, ms of all K with 2 and 1: f32 5.2, 5.0;
//                        bf16 2.69, 2.63; f16 4.3, 3.9. fp8 is bound by arithmetic, and one vector of 4 rows makes too few
//                        chains for it (2.03, 2.14).
//   kOwnBroadcasts       rows of which the products broadcast q by themselves: a broadcast into a register takes a slot of
//                        the shuffles, one inside the product a second load. bf16 with 0 and 4 such rows: 2.95, 2.63 ms;
//                        f32 5.06, 4.97; fp8 15.3, 12.8 cycles a line of K from L2
//   kQueryScale          what q was multiplied by, exactly, because Expand leaves that factor out of k
//   Slice(i, ...)        the i-th of 8 * kVectors parts of the transpose of kVectors * 16 rows of 16 dwords, row k at
//                        base + offsets[k]: to[dword][key]; t holds what is under way. Rows are read as whole lines,
//                        because token rows of several heads often lie 2 or 4 KiB apart, in few sets of L1.
//   None, Note, Check    what is remembered of the dwords that Slice saw, and whether they need care
//   Converter            what Expand wants to have in registers
//   Expand(converter, x, care, y)   y[s]: operand of step s, of 16 keys' dwords x
struct Transposer {
  REGARD_INLINE void TransposeLanes(const V (&x)[4], V* t) {
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[0], x[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpacklo_ps(x[2], x[3]));
    const __m512d c = _mm512_castps_pd(_mm512_unpackhi_ps(x[0], x[1]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(x[2], x[3]));
    t[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
    t[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    t[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
    t[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
  }
  template <class Unit, class Flags>
  REGARD_INLINE void SliceAs(int i, const char* base, const int64_t* offsets, V (&t)[16], Flags& seen, float* to) {
    constexpr int kKeys = Unit::kVectors * kLanes;
    const int n = i / 8, part = i % 8;
    if (part < 4) {  // 4 rows, transposed in each 128-bit lane: t[4 * part + c] lane l = dword 4 * l + c of them
      V x[4];
      REGARD_UNROLL
      for (int r = 0; r < 4; ++r) {
        x[r] = Load(reinterpret_cast<const float*>(base + offsets[16 * n + 4 * part + r]));
        seen = Unit::Note(seen, x[r]);
      }
      Unit::TransposeLanes(x, t + 4 * part);
    } else {  // lanes of the four: dwords c, 4 + c, 8 + c, 12 + c
      const int c = part - 4;
      const V a = _mm512_shuffle_f32x4(t[c], t[4 + c], 0x88), b = _mm512_shuffle_f32x4(t[8 + c], t[12 + c], 0x88);
      const V e = _mm512_shuffle_f32x4(t[c], t[4 + c], 0xdd), f = _mm512_shuffle_f32x4(t[8 + c], t[12 + c], 0xdd);
      float* const at = to + c * kKeys + n * kLanes;
      Store(at, _mm512_shuffle_f32x4(a, b, 0x88));
      Store(at + 4 * kKeys, _mm512_shuffle_f32x4(e, f, 0x88));
      Store(at + 8 * kKeys, _mm512_shuffle_f32x4(a, b, 0xdd));
      Store(at + 12 * kKeys, _mm512_shuffle_f32x4(e, f, 0xdd));
    }
  }
};

// Nothing to remember.
template <int kChainSteps, int kRows, int kKeyVectors>
struct CarelessUnit : Transposer {
  static constexpr int kSteps = kChainSteps, kVectors = kKeyVectors;
  static constexpr int kOwnBroadcasts = kRows;
  static constexpr float kQueryScale = 1.0f;
  struct Flags {};
  REGARD_INLINE Flags None() { return {}; }
  REGARD_INLINE Flags Note(Flags, V) { return {}; }
  REGARD_INLINE bool Check(Flags) { return false; }
};
struct PlainUnit : CarelessUnit<1, 4, 1> {
  using Converter = NoConverter;
  REGARD_INLINE void Slice(int i, const char* base, const int64_t* offsets, V (&t)[16], Flags& seen, float* to) {
    SliceAs<PlainUnit>(i, base, offsets, t, seen, to);
  }
  REGARD_INLINE void Expand(const Converter&, V x, bool, V (&y)[1]) { y[0] = x; }
};

template <>
struct KeyUnit<MathF32, Elem::kF32> : PlainUnit {};

// f16 under f32's fields: sign and the other 15 bits 3 places lower, which is k * 2^-112, subnormals included. Infinity
// and NaN (exponent 31: adding 1 to it changes the sign bit) are converted the long way.
template <>
struct KeyUnit<MathF32, Elem::kF16> : Transposer {
  static constexpr int kSteps = 2, kVectors = 1;
  static constexpr int kOwnBroadcasts = 4;
  static constexpr float kQueryScale = 0x1p112f;
  using Converter = NoConverter;
  using Flags = __m512i;
  REGARD_INLINE Flags None() { return _mm512_setzero_si512(); }
  REGARD_INLINE Flags Note(Flags seen, V x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i next = _mm512_add_epi16(bits, _mm512_set1_epi16(0x0400));
    return _mm512_ternarylogic_epi32(seen, bits, next, 0xf6);  // a | (b ^ c)
  }
  REGARD_INLINE bool Check(Flags seen) { return _mm512_movepi16_mask(seen) != 0; }
  REGARD_INLINE void Slice(int i, const char* base, const int64_t* offsets, V (&t)[16], Flags& seen, float* to) {
    SliceAs<KeyUnit>(i, base, offsets, t, seen, to);
  }
  [[gnu::noinline]] static V Convert(__m256i halves) { return Mul(_mm512_cvtph_ps(halves), Splat(0x1p-112f)); }
  REGARD_INLINE void Expand(const Converter&, V x, bool care, V (&y)[2]) {
    const __m512i bits = _mm512_castps_si512(x), keep = _mm512_set1_epi32(static_cast<int>(0x8fffe000u));
    if (care) [[unlikely]] {
      y[0] = Convert(_mm512_cvtepi32_epi16(bits));
      y[1] = Convert(_mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
      return;
    }
    y[0] = _mm512_castsi512_ps(_mm512_and_si512(_mm512_srai_epi32(_mm512_slli_epi32(bits, 16), 3), keep));
    y[1] = _mm512_castsi512_ps(_mm512_and_si512(_mm512_srai_epi32(bits, 3), keep));
  }
};

// ValueUnit<M, T>: kColumns columns of kPack keys as kVectors vectors. Group(j, l): which 4 columns lie in lane l of
// vector j.
//   kColumns, kKeys  columns at once, and keys after which the product turns to the next columns, in the end to the next
//                    head. One line of each of 16 to 32 keys is what memory answers best; more keys load and store o less
//                    often, which counts where arithmetic is the bound. Zen 4, one thread, 32k tokens of 8 heads of 128, ms
//                    of all V, columns x keys: f32 64 x 16 6.4, 32 x 16 5.9, 16 x 32 4.9, 16 x 16 5.1; bf16 64 x 32 3.7,
//                    64 x 8 3.4, 32 x 64 3.0, 32 x 32 2.9, 32 x 16 2.5; f16 64 x 64 3.0, 32 x 16 3.3, 32 x 64 2.8. The same
//                    columns of the next head are fetched into L1 meanwhile (f32 5.1, 5.9 without).
//   kTakes           turns of kTurnLines lines without a branch between them
//   kOwnBroadcasts   as above, for all rows: cycles a line from L2 f16 9.8 without, 9.1 with; fp8 13.9, 12.5; bf16 6.0, 6.3
template <>
struct ValueUnit<MathF32, Elem::kF32> : NaturalColumns {
  static constexpr int kColumns = 16, kVectors = 1, kKeys = 32, kTakes = 1;
  static constexpr bool kOwnBroadcasts = true;
  REGARD_INLINE void LoadColumns(const Converter&, const char* a, const char*, V (&v)[1]) {
    v[0] = Load(reinterpret_cast<const float*>(a));
  }
};
template <>
struct ValueUnit<MathF32, Elem::kF16> : NaturalColumns {
  static constexpr int kColumns = 32, kVectors = 2, kKeys = 64, kTakes = 2;
  static constexpr bool kOwnBroadcasts = true;
  REGARD_INLINE void LoadColumns(const Converter&, const char* a, const char*, V (&v)[2]) {
    v[0] = LoadF16(a);
    v[1] = LoadF16(a + 2 * kLanes);
  }
};

#ifdef REGARD_HAS_BF16_PAIRS
template <>
struct KeyUnit<MathPairs, Elem::kBF16> : PlainUnit {};

template <>
struct ValueUnit<MathPairs, Elem::kBF16> {
  static constexpr int kColumns = 32, kVectors = 2, kKeys = 16, kTakes = 1;
  static constexpr bool kOwnBroadcasts = false;
  static constexpr bool kNatural = false;
  static constexpr int Group(int j, int l) { return 2 * l + j; }
  using Converter = NoConverter;
  REGARD_INLINE void LoadColumns(const Converter&, const char* a, const char* b, V (&v)[2]) {
    const __m512i x = _mm512_loadu_si512(a), y = b ? _mm512_loadu_si512(b) : _mm512_setzero_si512();
    v[0] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(x, y));
    v[1] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(x, y));
  }
};

// fp8 to bf16 by its two bytes, looked up in tables of the 128 magnitudes; the sign is put back by hand.
struct Fp8Tables {
  alignas(64) uint8_t low[128], high[128];
  constexpr Fp8Tables(int mantissa_bits, int bias, bool infinity) : low(), high() {
    const int mantissas = 1 << mantissa_bits;
    for (int m = 0; m < 128; ++m) {
      int exponent = m >> mantissa_bits, mantissa = m & (mantissas - 1);
      int bits;
      if (infinity ? exponent == 31 : m == 127) {
        bits = infinity && mantissa == 0 ? 0x7f80 : 0x7fc0;
      } else if (m == 0) {
        bits = 0;
      } else {
        if (exponent == 0) {  // subnormal: normal in bf16
          for (exponent = 1; mantissa < mantissas; --exponent) mantissa *= 2;
          mantissa -= mantissas;
        }
        bits = (exponent - bias + 127) << 7 | mantissa << (7 - mantissa_bits);
      }
      low[m] = static_cast<uint8_t>(bits & 0xff);
      high[m] = static_cast<uint8_t>(bits >> 8);
    }
  }
};
static constexpr Fp8Tables kE4M3Tables(3, 7, false), kE5M2Tables(2, 15, true);

// The four halves of the tables. Opaque, or GCC would load them anew for every look-up.
template <Elem T>
struct Fp8Converter {
  __m512i low[2], high[2];
  REGARD_ALWAYS_INLINE Fp8Converter() {
    constexpr const Fp8Tables& tables = T == Elem::kF8E4M3 ? kE4M3Tables : kE5M2Tables;
    REGARD_UNROLL
    for (int i = 0; i < 2; ++i) {
      low[i] = _mm512_load_si512(tables.low + 64 * i);
      high[i] = _mm512_load_si512(tables.high + 64 * i);
      asm("" : "+v"(low[i]), "+v"(high[i]));
    }
  }
  // bytes 0-7 of each 128-bit lane of x into bf16 y[0], bytes 8-15 into y[1]
  REGARD_ALWAYS_INLINE void Convert(__m512i x, V* y) const {
    const __m512i l = _mm512_permutex2var_epi8(low[0], x, low[1]);
    __m512i h = _mm512_permutex2var_epi8(high[0], x, high[1]);
    h = _mm512_ternarylogic_epi32(h, x, _mm512_set1_epi8(static_cast<char>(0x80)), 0xf8);  // a | (b & c)
    y[0] = _mm512_castsi512_ps(_mm512_unpacklo_epi8(l, h));
    y[1] = _mm512_castsi512_ps(_mm512_unpackhi_epi8(l, h));
  }
};

// Transposed in words, so that the first two bytes of 4 keys' dwords come to lie in the low half of a 128-bit lane and
// the other two in its high half: one conversion then leaves the pairs of both steps in place.
template <Elem T>
struct Fp8KeyUnit : CarelessUnit<2, 4, 2> {
  REGARD_INLINE void TransposeLanes(const V (&x)[4], V* t) {
    __m512i w[4];
    REGARD_UNROLL
    for (int r = 0; r < 4; ++r) w[r] = _mm512_castps_si512(x[r]);
    const __m512i a = _mm512_unpacklo_epi16(w[0], w[1]), b = _mm512_unpacklo_epi16(w[2], w[3]);
    const __m512i c = _mm512_unpackhi_epi16(w[0], w[1]), d = _mm512_unpackhi_epi16(w[2], w[3]);
    t[0] = _mm512_castsi512_ps(_mm512_unpacklo_epi32(a, b));
    t[1] = _mm512_castsi512_ps(_mm512_unpackhi_epi32(a, b));
    t[2] = _mm512_castsi512_ps(_mm512_unpacklo_epi32(c, d));
    t[3] = _mm512_castsi512_ps(_mm512_unpackhi_epi32(c, d));
  }
  REGARD_INLINE void Slice(int i, const char* base, const int64_t* offsets, V (&t)[16], Flags& seen, float* to) {
    SliceAs<Fp8KeyUnit>(i, base, offsets, t, seen, to);
  }
  using Converter = Fp8Converter<T>;
  REGARD_INLINE void Expand(const Converter& converter, V x, bool, V (&y)[2]) {
    converter.Convert(_mm512_castps_si512(x), y);
  }
};
template <>
struct KeyUnit<MathPairs, Elem::kF8E4M3> : Fp8KeyUnit<Elem::kF8E4M3> {};
template <>
struct KeyUnit<MathPairs, Elem::kF8E5M2> : Fp8KeyUnit<Elem::kF8E5M2> {};

template <Elem T>
struct Fp8ValueUnit {
  static constexpr int kColumns = 64, kVectors = 4, kKeys = 64, kTakes = 2;
  static constexpr bool kOwnBroadcasts = true;
  static constexpr bool kNatural = false;
  static constexpr int Group(int j, int l) { return 4 * l + j; }
  using Converter = Fp8Converter<T>;
  REGARD_INLINE void LoadColumns(const Converter& converter, const char* a, const char* b, V (&v)[4]) {
    const __m512i x = _mm512_loadu_si512(a), y = b ? _mm512_loadu_si512(b) : _mm512_setzero_si512();
    converter.Convert(_mm512_unpacklo_epi8(x, y), v);
    converter.Convert(_mm512_unpackhi_epi8(x, y), v + 2);
  }
};
template <>
struct ValueUnit<MathPairs, Elem::kF8E4M3> : Fp8ValueUnit<Elem::kF8E4M3> {};
template <>
struct ValueUnit<MathPairs, Elem::kF8E5M2> : Fp8ValueUnit<Elem::kF8E5M2> {};
#endif

}  // namespace regard::cpu::REGARD_ISA
