// Online softmax over blocks of keys (Milakov and Gimelshein 2018; FlashAttention-2), and the states it leaves.
// State of a row: (o, m, l); m is the largest score, in the units FinishScores left it in (c = log2(e) per natural unit);
// softmax so far = o / l, with o and l relative to 2^(c * m). Empty: (0, -inf, 0).
#pragma once

#include "src/cpu/tile/math.h"

namespace regard::cpu::REGARD_ISA {

// What a (sequence, kv head) multiplies its products by.
struct Scaling {
  float scale;     // natural units: options' scale times the descales of q and k
  float exponent;  // c of SoftmaxBlock
  bool transform;  // FinishScores brings scores to natural units first
  float qv_factor; // fp8 values entering the score through qv: v's descale over k's
};
static Scaling ScalingOf(const ForwardParams& p, int64_t b, int64_t h) {
  Scaling r{p.scale, 0.0f, p.transforms, 1.0f};
  if (p.q_descale) r.scale *= p.q_descale[b * p.q_descale_stride[0] + h * p.q_descale_stride[1]];
  const float k = p.k_descale ? p.k_descale[b * p.k_descale_stride[0] + h * p.k_descale_stride[1]] : 1.0f;
  const float v = p.v_descale ? p.v_descale[b * p.v_descale_stride[0] + h * p.v_descale_stride[1]] : 1.0f;
  r.scale *= k;
  if (p.qv_dim > 0) r.qv_factor = v / k;
  if (!(r.scale > 0.0f)) r.transform = true;  // the maximum of raw scores would be the minimum
  r.exponent = r.transform ? kLog2E : r.scale * kLog2E;
  return r;
}

// 2^(c * (a - b)) for a <= b, 0 for an empty a.
static inline float Weight(float a, float b, float c) {
  if (a == kMinusInf) return 0.0f;
  alignas(64) float w[kLanes];
  Store(w, Exp2(Splat((a - b) * c)));
  return w[0];
}

static inline void ScaleRow(float* o, int64_t n, float w) {
  const V v = Splat(w);
  for (int64_t c = 0; c < n; c += kLanes) Store(o + c, Mul(Load(o + c), v));
}

// One block of a row: final scores x[begin, end) (multiples of kPanelKeys from the block's start) become weights
// p = 2^(c * (x - m)), packed for M's product (f32 in place, or bf16 pairs from x[begin / 2]); m, l and o advance. Lane
// j' mod kLanes sums its keys in order, then the lanes add up by a fixed tree.
template <class M>
static void SoftmaxBlock(float* x, int begin, int end, float c, float* m, float* l, float* o, int64_t o_floats) {
  V top = Splat(kMinusInf);
  for (int k = begin; k < end; k += kLanes) top = Max(top, Load(x + k));
  const float block_max = ReduceMax(top);
  if (!(block_max <= *m)) {
    if (*m != kMinusInf) {
      const float alpha = Weight(*m, block_max, c);
      *l *= alpha;
      ScaleRow(o, o_floats, alpha);
    }
    *m = block_max;
  }
  const V base = Splat(*m == kMinusInf ? 0.0f : *m);
  const V vc = Splat(c);
  V sum = Zero();
  for (int k = begin; k < end; k += kPanelKeys) {
    const V x0 = Load(x + k), x1 = Load(x + k + kLanes);
    const V p0 = MarkMasked(x0, Exp2(Mul(Sub(x0, base), vc)));
    const V p1 = MarkMasked(x1, Exp2(Mul(Sub(x1, base), vc)));
    sum = Add(Add(sum, p0), p1);
    if constexpr (M::kPack == 1) {
      Store(x + k, p0);
      Store(x + k + kLanes, p1);
    } else {
#ifdef REGARD_HAS_BF16_PAIRS
      Store(x + k / 2, PackPairs(p0, p1));
#endif
    }
  }
  *l += ReduceAdd(sum);
}

// (o, m, l) <- (o, m, l) + (o2, m2, l2): "Merging partial results" of docs/semantics.md on unnormalised states.
static void FoldState(float* o, float* m, float* l, const float* o2, float m2, float l2, float c,
                      int64_t o_floats) {
  const float top = *m < m2 ? m2 : *m;
  const float w = Weight(*m, top, c), w2 = Weight(m2, top, c);
  const V vw = Splat(w), vw2 = Splat(w2);
  for (int64_t n = 0; n < o_floats; n += kLanes) Store(o + n, Fma(Load(o2 + n), vw2, Mul(Load(o + n), vw)));
  *l = *l * w + l2 * w2;
  *m = top;
}

static void StoreOut(Elem type, char* to, const float* from, int n) {
  int c = 0;
  alignas(64) char tail[kLanes * 4];
  for (; c < n; c += kLanes) {
    const V v = Load(from + c);
    const bool whole = c + kLanes <= n;
    char* at = whole ? to + static_cast<int64_t>(c) * BytesOf(type) : tail;
    if (type == Elem::kF32) Store(reinterpret_cast<float*>(at), CanonicalNan(v));
    if (type == Elem::kF16) StoreF16(at, v);
    if (type == Elem::kBF16) StoreBF16(at, v);
    if (!whole) memcpy(to + static_cast<int64_t>(c) * BytesOf(type), tail, static_cast<size_t>((n - c) * BytesOf(type)));
  }
}

// The sink last, then one division; writes out and lse of one row. Adding +0 makes every zero a +0: the sign of a zero
// would depend on which masked keys were passed over.
static void FinishRow(const ForwardParams& p, const Seq& s, const Scaling& scaling, int64_t b, int64_t h, int64_t i,
                      float* o, float m, float l) {
  if (!scaling.transform) m *= scaling.scale;
  float w = 1.0f;
  if (p.sink) {
    const char* at = static_cast<const char*>(p.sink) + h * BytesOf(p.sink_type);
    const float sink = LoadElem(at, p.sink_type);
    const float top = m < sink ? sink : m;
    w = Weight(m, top, kLog2E);
    l = l * w + Weight(sink, top, kLog2E);
    m = top;
  }
  if (l == 0.0f) m = kMinusInf;
  const float inverse = l == 0.0f ? 0.0f : w / l;
  float descale = 1.0f;
  if (p.v_descale) descale = p.v_descale[b * p.v_descale_stride[0] + h / p.group * p.v_descale_stride[1]];
  for (int c = 0; c < p.head_dim_v; c += kLanes) {
    const V v = l == 0.0f ? Zero() : Mul(Mul(Load(o + c), Splat(inverse)), Splat(descale));
    Store(o + c, Add(v, Zero()));
  }
  const int64_t row = p.varlen ? s.q_row + i : i;
  const int64_t batch = p.varlen ? 0 : b;
  StoreOut(p.out_type, p.out + batch * p.out_stride_b + row * p.out_stride_s + h * p.out_stride_h, o, p.head_dim_v);
  if (p.lse) p.lse[batch * p.lse_stride_b + h * p.lse_stride_h + row * p.lse_stride_s] = LseOf(m, l);
}

}  // namespace regard::cpu::REGARD_ISA
