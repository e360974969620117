// From a dot product to a score, steps 1 to 5 of docs/semantics.md, in f32. A score leaves here times log2(e), so that
// exp2 gives the weight.
#pragma once

#include "base/params.h"
#include "ptx/convert.h"
#include "ptx/math.h"
#include "ptx/memory.h"

namespace regard::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

// tanh by exp2: 1 - 2 / (e^2x + 1), and below 1/4, where that cancels, its series to x^9 (the next term is below 2^-25
// of the value). Relative error about 2^-21.
REGARD_COLD float Tanh(float x) {
  const float a = Absolute(x);
  if (a < 0.25f) {
    const float y = x * x;
    const float series = Fma(y, Fma(y, Fma(y, Fma(y, 62.0f / 2835, -17.0f / 315), 2.0f / 15), -1.0f / 3), 1.0f);
    return x * series;
  }
  const float t = 1 - Divide(2.0f, Exp2(2 * kLog2E * a) + 1);
  return x < 0 ? -t : x > 0 ? t : x;  // NaN stays
}

// An element of a tensor of the given type.
REGARD_DEVICE float LoadElement(const void* data, Element type, i64 i) {
  switch (type) {
    case Element::kF32: return Global<const float>(static_cast<const float*>(data)).Load(i);
    case Element::kF16: return Wide(Global<const F16>(static_cast<const F16*>(data)).Load(i));
    case Element::kBF16: return Wide(Global<const BF16>(static_cast<const BF16*>(data)).Load(i));
    case Element::kE4M3: return Wide(Global<const E4M3>(static_cast<const E4M3*>(data)).Load(i));
    case Element::kE5M2: return Wide(Global<const E5M2>(static_cast<const E5M2*>(data)).Load(i));
  }
  return 0;
}

// Rounded once, nearest even; fp8 saturates.
REGARD_DEVICE void StoreElement(void* data, Element type, i64 i, float x) {
  switch (type) {
    case Element::kF32: return Global<float>(static_cast<float*>(data)).Store(i, x);
    case Element::kF16: return Global<F16>(static_cast<F16*>(data)).Store(i, NarrowF16(x));
    case Element::kBF16: return Global<BF16>(static_cast<BF16*>(data)).Store(i, NarrowBF16Fast(x));
    case Element::kE4M3: return Global<E4M3>(static_cast<E4M3*>(data)).Store(i, NarrowE4M3(x));
    case Element::kE5M2: return Global<E5M2>(static_cast<E5M2*>(data)).Store(i, NarrowE5M2(x));
  }
}

REGARD_DEVICE i64 MapIndex(const Map& m, i64 b, i64 h, i64 i, i64 j) {
  return b * m.stride[0] + h * m.stride[1] + i * m.stride[2] + j * m.stride[3];
}
// Whether (i, j) lies inside the map's last two extents, where it does not broadcast. A table in device memory may claim
// more keys than a bias or mask has.
REGARD_DEVICE bool MapHolds(const Map& m, i64 i, i64 j) {
  return (m.extent[2] == 1 || i < m.extent[2]) && (m.extent[3] == 1 || j < m.extent[3]);
}

// The scale of one (b, kv head): fp8 descales of q and k come in here.
REGARD_DEVICE float QueryScaleOf(const Options& o, int b, int kv_head) {
  return o.q_descale == nullptr ? o.scale
                                : o.scale * Global<const float>(o.q_descale).Load(b * o.descale_batch + kv_head);
}
REGARD_DEVICE float KeyScaleOf(const Options& o, int b, int kv_head) {
  return o.k_descale == nullptr ? 1.0f : Global<const float>(o.k_descale).Load(b * o.descale_batch + kv_head);
}
REGARD_DEVICE float ScaleOf(const Options& o, int b, int kv_head) {
  return QueryScaleOf(o, b, kv_head) * KeyScaleOf(o, b, kv_head);
}
REGARD_DEVICE float ValueScaleOf(const Options& o, int b, int kv_head) {
  return o.v_descale == nullptr ? 1.0f : Global<const float>(o.v_descale).Load(b * o.descale_batch + kv_head);
}
REGARD_DEVICE float SlopeOf(const Options& o, int b, int head) {
  return o.alibi == nullptr ? 0.0f : Global<const float>(o.alibi).Load(b * o.alibi_batch + head);
}

// What a score needs to know of its query.
struct QueryRow {
  i32 b = 0, head = 0;
  i64 i = 0;             // row of the sequence
  i64 position = 0;      // p
  float slope = 0;       // ALiBi
};

// A call: its loads of every type are many instructions, and a tile has many scores.
REGARD_COLD float BiasOf(const Options& o, i32 b, i32 head, i64 i, i64 j) {
  return MapHolds(o.bias, i, j) ? LoadElement(o.bias.data, o.bias_type, MapIndex(o.bias, b, head, i, j)) : 0.0f;
}

// scale * dot, softcap, ALiBi, bias; not yet times log2(e). j counts in the sequence.
REGARD_DEVICE float Score(const Options& o, const QueryRow& row, float dot, float scale, i64 j) {
  float s = dot * scale;
  if (o.softcap > 0) s = o.softcap * Tanh(Divide(s, o.softcap));
  if (o.alibi != nullptr) {
    const i64 distance = row.position < j ? j - row.position : row.position - j;
    s = Fma(-row.slope, static_cast<float>(distance), s);
  }
  if (o.bias.data != nullptr) s += BiasOf(o, row.b, row.head, row.i, j);
  return s;
}

// The boolean mask's word on (row, j); true without one, false past its extents.
REGARD_COLD bool MaskByte(const Options& o, i32 b, i32 head, i64 i, i64 j) {
  if (!MapHolds(o.mask, i, j)) return false;
  return Global<const u8>(static_cast<const u8*>(o.mask.data)).Load(MapIndex(o.mask, b, head, i, j)) != 0;
}
REGARD_DEVICE bool MaskShows(const Options& o, const QueryRow& row, i64 j) {
  return o.mask.data == nullptr || MaskByte(o, row.b, row.head, row.i, j);
}

}  // namespace regard::cuda
