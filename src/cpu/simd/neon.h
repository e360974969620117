// The vector contract (simd/vec.h) in NEON (Armv8-A, 64-bit).
#pragma once

#include <arm_neon.h>

#include "regard/dtype.h"
#include "src/cpu/simd/vec.h"

namespace regard::cpu::REGARD_ISA {

inline constexpr int kLanes = 4;
inline constexpr int kTileRows = 8;  // 8 x 2 accumulators + 2 panel vectors + 1 broadcast = 19 of 32 registers
using V = float32x4_t;

static inline V Zero() { return vdupq_n_f32(0.0f); }
static inline V Splat(float x) { return vdupq_n_f32(x); }
static inline V SplatMem(const float* p) { return vld1q_dup_f32(p); }
static inline V Load(const float* p) { return vld1q_f32(p); }
static inline void Store(float* p, V v) { vst1q_f32(p, v); }
static inline V Fma(V a, V b, V c) { return vfmaq_f32(c, a, b); }
static inline V Add(V a, V b) { return vaddq_f32(a, b); }
static inline V Sub(V a, V b) { return vsubq_f32(a, b); }
static inline V Mul(V a, V b) { return vmulq_f32(a, b); }
static inline V Div(V a, V b) { return vdivq_f32(a, b); }
static inline V Max(V a, V b) { return vmaxq_f32(a, b); }
static inline V Abs(V a) { return vabsq_f32(a); }

// Below 2^-126 the result is 0.
static inline V Exp2(V y) {
  const V floor = Splat(-126.0f);
  const V z = vmaxq_f32(floor, y);
  const V n = vrndnq_f32(z);
  const V f = Sub(z, n);
  V r = Fma(f, Splat(kExp2C5), Splat(kExp2C4));
  r = Fma(f, r, Splat(kExp2C3));
  r = Fma(f, r, Splat(kExp2C2));
  r = Fma(f, r, Splat(kExp2C1));
  r = Fma(f, r, Splat(1.0f));
  const int32x4_t scale = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
  r = Mul(r, vreinterpretq_f32_s32(scale));
  return vbslq_f32(vcltq_f32(y, floor), Zero(), r);
}

static inline V MarkMasked(V x, V p) { return vbslq_f32(vceqq_f32(x, Splat(-__builtin_inff())), Splat(-0.0f), p); }
static inline V SelectLess(V a, V b, V t, V f) { return vbslq_f32(vcltq_f32(a, b), t, f); }
static inline V CanonicalNan(V x) {
  return vbslq_f32(vceqq_f32(x, x), x, vreinterpretq_f32_u32(vdupq_n_u32(0x7fc00000u)));
}

static inline uint32x4_t BitsOf(V v) { return vreinterpretq_u32_f32(v); }
static inline uint64x2_t PairsOf(V v) { return vreinterpretq_u64_f32(v); }
static inline V SplatBits(uint32_t x) { return vreinterpretq_f32_u32(vdupq_n_u32(x)); }
static inline V AddBits(V a, V b) { return vreinterpretq_f32_u32(vaddq_u32(BitsOf(a), BitsOf(b))); }
static inline V AndBits(V a, V b) { return vreinterpretq_f32_u32(vandq_u32(BitsOf(a), BitsOf(b))); }
static inline V Xor(V a, V b, V c) {
  return vreinterpretq_f32_u32(veorq_u32(veorq_u32(BitsOf(a), BitsOf(b)), BitsOf(c)));
}
static inline V MulEven(V a, V b) {
  return vreinterpretq_f32_u64(vmull_u32(vmovn_u64(PairsOf(a)), vmovn_u64(PairsOf(b))));
}
static inline V OddToEven(V a) { return vreinterpretq_f32_u64(vshrq_n_u64(PairsOf(a), 32)); }
static inline V MergeEven(V a, V b) { return vtrn1q_f32(a, b); }
static inline void ZipPairs(V a, V b, V* even, V* odd) {
  *even = vreinterpretq_f32_u64(vtrn1q_u64(PairsOf(a), PairsOf(b)));
  *odd = vreinterpretq_f32_u64(vtrn2q_u64(PairsOf(a), PairsOf(b)));
}
static inline V KeepFrom(V x, V low, V v) {
  return vreinterpretq_f32_u32(vandq_u32(vcgeq_u32(BitsOf(x), BitsOf(low)), BitsOf(v)));
}

static inline float ReduceAdd(V v) {
  const float32x2_t a = vadd_f32(vget_low_f32(v), vget_high_f32(v));
  return vget_lane_f32(a, 0) + vget_lane_f32(a, 1);
}
static inline float ReduceMax(V v) { return vmaxvq_f32(v); }

static inline void Transpose(V r[4]) {
  const float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
  r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
  r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
  r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
  r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

static inline V LoadF16(const void* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(static_cast<const uint16_t*>(p))));
}
static inline V LoadBF16(const void* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(static_cast<const uint16_t*>(p)), 16));
}
static inline V LoadFp8(const void* p, float (*convert)(uint8_t) noexcept) {
  const uint8_t* c = static_cast<const uint8_t*>(p);
  const float x[4] = {convert(c[0]), convert(c[1]), convert(c[2]), convert(c[3])};
  return vld1q_f32(x);
}
static inline V LoadE4M3(const void* p) { return LoadFp8(p, F8E4M3ToFloat); }
static inline V LoadE5M2(const void* p) { return LoadFp8(p, F8E5M2ToFloat); }
static inline void StoreF16(void* p, V v) {
  vst1_u16(static_cast<uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32(CanonicalNan(v))));
}
static inline void StoreBF16(void* p, V v) {
  const uint32x4_t x = vreinterpretq_u32_f32(CanonicalNan(v));
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(x, 16), vdupq_n_u32(1));
  const uint32x4_t r = vaddq_u32(x, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  vst1_u16(static_cast<uint16_t*>(p), vshrn_n_u32(r, 16));
}
[[gnu::always_inline]] static inline void PrefetchFar(const void* p) { __builtin_prefetch(p, 0, 2); }
[[gnu::always_inline]] static inline void PrefetchNear(const void* p) { __builtin_prefetch(p, 0, 3); }

}  // namespace regard::cpu::REGARD_ISA
