// Online softmax over blocks of keys (Milakov and Gimelshein 2018; FlashAttention-2), and the states it leaves.
// State of a row: (o, m, l); m is the largest score, in the units FinishScores left it in (c = log2(e) per natural
// unit); softmax so far = o / l, with o and l relative to 2^(c * m). Empty: (0, -inf, 0).
#pragma once

#include "src/cpu/tile/dropout.h"

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

// One block of `rows` rows, kScoreStride apart: final scores x[begin, end) (multiples of kPanelKeys from the block's
// start) become weights p = 2^(c * (x - m)), packed for M's product (f32 in place, or bf16 pairs from x[begin / 2]). m
// and l advance; o is to be multiplied by alpha before the block's values are added, and the result says whether some
// alpha is not 1. Lane j' mod kLanes sums its keys in order, then the lanes add up by a fixed tree. kMark: weights of
// masked keys are -0, for AccumulateVisibleValues; else +0. Drop: KeepAll or DropSome; l sums what is dropped too.
template <class M, bool kMark, class Drop>
[[gnu::noinline]] static bool SoftmaxRows(float* x, int rows, int begin, int end, float c, float* m, float* l,
                                         float* alpha, const Drop& drop) {
  alignas(64) float rise[kMaxTileRows];
  for (int r = 0; r < rows; ++r) {
    const float* row = x + r * kScoreStride;
    V top0 = Splat(kMinusInf), top1 = top0;
    for (int k = begin; k < end; k += kPanelKeys) {
      top0 = Max(top0, Load(row + k));
      top1 = Max(top1, Load(row + k + kLanes));
    }
    const float block_max = ReduceMax(Max(top0, top1)), before = m[r];
    m[r] = block_max <= before ? before : block_max;
    rise[r] = before == kMinusInf ? kMinusInf : before - m[r];
  }
  const V vc = Splat(c);
  for (int r = 0; r < rows; r += kLanes) Store(alpha + r, Exp2(Mul(Load(rise + r), vc)));
  bool rescale = false;
  alignas(64) float factor[Drop::kDrops ? kBlockTokens : 1];
  for (int r = 0; r < rows; ++r) {
    float* row = x + r * kScoreStride;
    if constexpr (Drop::kDrops) {
      DropFactors(drop.p, drop.s, drop.rows[r], drop.start + begin, end - begin, factor);
    }
    const V base = Splat(m[r] == kMinusInf ? 0.0f : m[r]);
    V sum = Zero();
    for (int k = begin; k < end; k += kPanelKeys) {
      const V x0 = Load(row + k), x1 = Load(row + k + kLanes);
      V p0 = Exp2(Mul(Sub(x0, base), vc)), p1 = Exp2(Mul(Sub(x1, base), vc));
      if constexpr (kMark) {
        p0 = MarkMasked(x0, p0);
        p1 = MarkMasked(x1, p1);
      }
      sum = Add(Add(sum, p0), p1);
      if constexpr (Drop::kDrops) {  // a masked key's zero keeps its sign
        p0 = Mul(p0, Load(factor + k - begin));
        p1 = Mul(p1, Load(factor + k - begin + kLanes));
      }
      if constexpr (M::kPack == 1) {
        Store(row + k, p0);
        Store(row + k + kLanes, p1);
      } else {
#ifdef REGARD_HAS_BF16_PAIRS
        Store(row + k / 2, PackPairs(p0, p1));
#endif
      }
    }
    l[r] = l[r] * alpha[r] + ReduceAdd(sum);
    rescale = rescale || alpha[r] != 1.0f;
  }
  return rescale;
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

// o * inverse * descale, every zero +0, as elements of type T.
template <Elem T>
static void StoreOut(const float* o, float inverse, float descale, int n, char* to) {
  const V vi = Splat(inverse), vd = Splat(descale);
  for (int c = 0; c < n; c += kLanes, to += kLanes * BytesOf(T)) {
    const V v = Add(Mul(Mul(Load(o + c), vi), vd), Zero());
    alignas(64) char tail[kLanes * 4];
    char* at = c + kLanes <= n ? to : tail;
    if constexpr (T == Elem::kF32) Store(reinterpret_cast<float*>(at), CanonicalNan(v));
    if constexpr (T == Elem::kF16) StoreF16(at, v);
    if constexpr (T == Elem::kBF16) StoreBF16(at, v);
    if (at == tail) memcpy(to, tail, static_cast<size_t>((n - c) * BytesOf(T)));
  }
}

// The sink last, then one division; writes out and lse of one row. o is not read where no key was seen (l = 0): a tile
// that never met a key has not begun it. Adding +0 makes every zero a +0: the sign of a zero
// would depend on which masked keys were passed over.
static void FinishRow(const ForwardParams& p, const Seq& s, const Scaling& scaling, int64_t b, int64_t h, int64_t i,
                      const float* o, float m, float l) {
  if (!scaling.transform) m *= scaling.scale;
  const bool empty = l == 0.0f;
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
  const int64_t row = p.varlen ? s.q_row + i : i;
  const int64_t batch = p.varlen ? 0 : b;
  char* out = p.out + batch * p.out_stride_b + row * p.out_stride_s + h * p.out_stride_h;
  const bool drops_all = p.drops && p.drop_scale == 0.0f && l == l;  // whatever the values; a NaN score stays
  if (empty || drops_all) {
    memset(out, 0, static_cast<size_t>(p.head_dim_v * BytesOf(p.out_type)));
  } else {
    WithElem(p.out_type, [&](auto t) { StoreOut<decltype(t)::value>(o, inverse, descale, p.head_dim_v, out); });
  }
  if (p.lse) p.lse[batch * p.lse_stride_b + h * p.lse_stride_h + row * p.lse_stride_s] = LseOf(m, l);
}

}  // namespace regard::cpu::REGARD_ISA
