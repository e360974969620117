// The vector contract (simd/vec.h) in plain C++: the twin that every other instruction set is compared with. Multiply
// and add round separately here (a fused multiply-add without hardware is a library call).
#pragma once

#include "regard/dtype.h"
#include "src/cpu/simd/vec.h"

namespace regard::cpu::REGARD_ISA {

inline constexpr int kLanes = 8;
inline constexpr int kTileRows = 4;
struct V {
  float x[kLanes];
};

#define REGARD_EACH(expression)                \
  V r;                                         \
  for (int i = 0; i < kLanes; ++i) r.x[i] = (expression); \
  return r

static inline uint32_t Bits(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
static inline float FromBits(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

static inline V Splat(float x) { REGARD_EACH(x); }
static inline V Zero() { return Splat(0.0f); }
static inline V SplatMem(const float* p) { return Splat(*p); }
static inline V Load(const float* p) {
  V r;
  memcpy(r.x, p, sizeof r.x);
  return r;
}
static inline void Store(float* p, V v) { memcpy(p, v.x, sizeof v.x); }
static inline V Fma(V a, V b, V c) { REGARD_EACH(a.x[i] * b.x[i] + c.x[i]); }
static inline V Add(V a, V b) { REGARD_EACH(a.x[i] + b.x[i]); }
static inline V Sub(V a, V b) { REGARD_EACH(a.x[i] - b.x[i]); }
static inline V Mul(V a, V b) { REGARD_EACH(a.x[i] * b.x[i]); }
static inline V Div(V a, V b) { REGARD_EACH(a.x[i] / b.x[i]); }
static inline V Max(V a, V b) { REGARD_EACH(a.x[i] > b.x[i] ? a.x[i] : b.x[i]); }
static inline V Abs(V a) { REGARD_EACH(FromBits(Bits(a.x[i]) & 0x7fffffffu)); }

// Rounds by adding and taking away 1.5 * 2^23. Below 2^-126 the result is 0.
static inline float Exp2One(float y) {
  const float z = y < -126.0f ? -126.0f : y;
  const float shifted = z + 12582912.0f;
  const float f = z - (shifted - 12582912.0f);
  float r = f * kExp2C5 + kExp2C4;
  r = f * r + kExp2C3;
  r = f * r + kExp2C2;
  r = f * r + kExp2C1;
  r = f * r + 1.0f;
  const float scale = FromBits((Bits(shifted) + 127u) << 23);
  const float p = y < -126.0f ? 0.0f : r * scale;
  return y != y ? y : p;
}
static inline V Exp2(V y) { REGARD_EACH(Exp2One(y.x[i])); }
static inline V MarkMasked(V x, V p) { REGARD_EACH(x.x[i] == -__builtin_inff() ? -0.0f : p.x[i]); }
static inline V SelectLess(V a, V b, V t, V f) { REGARD_EACH(a.x[i] < b.x[i] ? t.x[i] : f.x[i]); }
static inline V CanonicalNan(V a) { REGARD_EACH(a.x[i] != a.x[i] ? FromBits(0x7fc00000u) : a.x[i]); }

static inline V SplatBits(uint32_t x) { return Splat(FromBits(x)); }
static inline V AddBits(V a, V b) { REGARD_EACH(FromBits(Bits(a.x[i]) + Bits(b.x[i]))); }
static inline V AndBits(V a, V b) { REGARD_EACH(FromBits(Bits(a.x[i]) & Bits(b.x[i]))); }
static inline V Xor(V a, V b, V c) { REGARD_EACH(FromBits(Bits(a.x[i]) ^ Bits(b.x[i]) ^ Bits(c.x[i]))); }
static inline V MulEven(V a, V b) {
  V r;
  for (int i = 0; i < kLanes; i += 2) {
    const uint64_t product = uint64_t{Bits(a.x[i])} * Bits(b.x[i]);
    r.x[i] = FromBits(static_cast<uint32_t>(product));
    r.x[i + 1] = FromBits(static_cast<uint32_t>(product >> 32));
  }
  return r;
}
static inline V OddToEven(V a) { REGARD_EACH(i % 2 == 0 ? a.x[i + 1] : 0.0f); }
static inline V MergeEven(V a, V b) { REGARD_EACH(i % 2 == 0 ? a.x[i] : b.x[i - 1]); }
static inline void ZipPairs(V a, V b, V* even, V* odd) {
  for (int i = 0; i < kLanes; ++i) {
    even->x[i] = i % 4 < 2 ? a.x[i] : b.x[i - 2];
    odd->x[i] = i % 4 < 2 ? a.x[i + 2] : b.x[i];
  }
}
static inline V KeepFrom(V x, V low, V v) { REGARD_EACH(Bits(x.x[i]) >= Bits(low.x[i]) ? v.x[i] : 0.0f); }

static inline float ReduceAdd(V v) {
  return ((v.x[0] + v.x[4]) + (v.x[2] + v.x[6])) + ((v.x[1] + v.x[5]) + (v.x[3] + v.x[7]));
}
static inline float ReduceMax(V v) {
  float m = v.x[0];
  for (int i = 1; i < kLanes; ++i) m = v.x[i] > m ? v.x[i] : m;
  return m;
}
static inline void Transpose(V r[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const float t = r[i].x[j];
      r[i].x[j] = r[j].x[i];
      r[j].x[i] = t;
    }
  }
}

static inline V LoadF16(const void* p) { REGARD_EACH(F16ToFloat(static_cast<const uint16_t*>(p)[i])); }
static inline V LoadBF16(const void* p) { REGARD_EACH(BF16ToFloat(static_cast<const uint16_t*>(p)[i])); }
static inline V LoadE4M3(const void* p) { REGARD_EACH(F8E4M3ToFloat(static_cast<const uint8_t*>(p)[i])); }
static inline V LoadE5M2(const void* p) { REGARD_EACH(F8E5M2ToFloat(static_cast<const uint8_t*>(p)[i])); }
static inline void StoreF16(void* p, V v) {
  for (int i = 0; i < kLanes; ++i) static_cast<uint16_t*>(p)[i] = FloatToF16(v.x[i]);
}
static inline void StoreBF16(void* p, V v) {
  for (int i = 0; i < kLanes; ++i) static_cast<uint16_t*>(p)[i] = FloatToBF16(v.x[i]);
}
[[gnu::always_inline]] static inline void PrefetchFar(const void*) {}
[[gnu::always_inline]] static inline void PrefetchNear(const void*) {}

#undef REGARD_EACH

}  // namespace regard::cpu::REGARD_ISA
