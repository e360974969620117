// From raw dot products to final scores (steps 1 to 5 of docs/semantics.md), one row at a time. Without softcap, ALiBi,
// bias or score_mod the scale stays out of here: it goes into the fused multiply-add before exp2.
#pragma once

#include "src/cpu/tile/math.h"

namespace regard::cpu::REGARD_ISA {

// One query row: who it is, and its visible keys [lo, hi) in j'.
struct Row {
  int64_t b, h, i, lo, hi;
};

// tanh to about 2e-7 relative: an odd polynomial below 1/4, (1 - e) / (1 + e) with e = 2^(-2 log2(e) |u|) above.
static inline V Tanh(V u) {
  const V a = Abs(u);
  const V e = Exp2(Mul(a, Splat(-2.0f * kLog2E)));
  const V big = Div(Sub(Splat(1.0f), e), Add(Splat(1.0f), e));
  const V u2 = Mul(a, a);
  V r = Fma(u2, Splat(62.0f / 2835.0f), Splat(-17.0f / 315.0f));
  r = Fma(u2, r, Splat(2.0f / 15.0f));
  r = Fma(u2, r, Splat(-1.0f / 3.0f));
  const V small = Fma(Mul(u2, a), r, a);
  const V magnitude = SelectLess(a, Splat(0.25f), small, big);
  return SelectLess(u, Zero(), Sub(Zero(), magnitude), magnitude);
}

static void AddBias(const ForwardParams& p, const Row& row, int64_t j, int n, float* x) {
  const BroadcastView& v = p.bias;
  const char* from = v.data + row.b * v.b + row.h * v.h + row.i * v.i + j * v.j;
  WithElem(p.bias_type, [&](auto t) {
    constexpr Elem T = decltype(t)::value;
    int k = 0;
    if (v.j == BytesOf(T)) {
      for (; k + kLanes <= n; k += kLanes) Store(x + k, Add(Load(x + k), LoadF32<T>(from + k * BytesOf(T))));
    }
    for (; k < n; ++k) x[k] += LoadElem(from + k * v.j, T);
  });
}

// x[k] is the raw product with key j' = first + k, k in [0, n). `scale` includes the descales of an fp8 cache.
// Afterwards x holds natural-unit scores where `transform`, raw ones otherwise, and -inf where the key is not visible.
static void FinishScores(const ForwardParams& p, const Seq& s, const Row& row, int64_t first, int n, float scale,
                         bool transform, float* x) {
  // Keys outside the row's interval.
  const int lo = static_cast<int>(Min(Max(row.lo - first, 0), n));
  const int hi = static_cast<int>(Max(Min(row.hi - first, n), lo));
  const int64_t j0 = first + s.leftpad;  // j of x[0]
  if (transform) {
    const int64_t position = row.i + s.q_offset;
    const float slope = p.alibi ? p.alibi[row.b * p.alibi_stride_b + row.h] : 0.0f;
    const V vscale = Splat(scale), cap = Splat(p.softcap), inverse = Splat(p.softcap > 0 ? 1.0f / p.softcap : 0.0f);
    for (int k = 0; k < n; k += kLanes) {
      V v = Mul(Load(x + k), vscale);
      if (p.softcap > 0) v = Mul(cap, Tanh(Mul(v, inverse)));
      Store(x + k, v);
    }
    if (p.alibi) {
      for (int k = lo; k < hi; ++k) {
        const int64_t distance = position - (j0 + k);
        x[k] -= slope * static_cast<float>(distance < 0 ? -distance : distance);
      }
    }
    if (p.bias.data) AddBias(p, row, j0 + lo, hi - lo, x + lo);
    if (p.score_mod) {
      for (int k = lo; k < hi; ++k) x[k] = p.score_mod(p.score_mod_ctx, x[k], row.b, row.h, row.i, j0 + k);
    }
  }
  if (p.masks) {
    if (p.mask.data) {
      const char* mask = p.mask.data + row.b * p.mask.b + row.h * p.mask.h + row.i * p.mask.i + j0 * p.mask.j;
      for (int k = lo; k < hi; ++k) x[k] = mask[k * p.mask.j] ? x[k] : kMinusInf;
    }
    if (p.mask_mod) {
      for (int k = lo; k < hi; ++k) {
        if (!p.mask_mod(p.mask_mod_ctx, row.b, row.h, row.i, j0 + k)) x[k] = kMinusInf;
      }
    }
  }
  for (int k = 0; k < lo; ++k) x[k] = kMinusInf;
  for (int k = hi; k < n; ++k) x[k] = kMinusInf;
}

}  // namespace regard::cpu::REGARD_ISA
