// Values that are infinite or NaN, in blocks that not every row sees whole. A weight of 0 times such a value is NaN, so
// they leave the tile before the product and are added to the rows that see them: exactly those.
#pragma once

#include "base/config.h"
#include "ptx/convert.h"
#include "ptx/shuffle.h"
#include "sm80/products.h"

namespace regard::cuda::sm80 {

template <TensorConfig C>
REGARD_DEVICE bool IsNonFinite(u32 bits) {
  constexpr u32 kExponent = C.type == Element::kF16 ? 0x7c00u : 0x7f80u;
  return (bits & kExponent) == kExponent;
}
template <TensorConfig C>
REGARD_DEVICE float Wide16(u32 bits) {
  if constexpr (C.type == Element::kF16) return Wide(F16{static_cast<u16>(bits)});
  return Wide(BF16{static_cast<u16>(bits)});
}

// Whether the low and the high half of a pair of weights are not 0, as bits 0 and 1.
REGARD_DEVICE u32 WeightyBits(u32 pair) { return ((pair & 0x7fffu) != 0 ? 1u : 0u) | ((pair & 0x7fff0000u) != 0 ? 2u : 0u); }

// Whether the tile of values holds any; the same answer in every thread. A block barrier.
template <TensorConfig C>
REGARD_DEVICE bool AnyNonFinite(Shared<u16> values) {
  constexpr int kPieces = C.head_dim_v / 8, kPitch = TensorLayout::Pitch(C.head_dim_v);
  bool found = false;
  REGARD_ROLLED
  for (int at = ThreadIndex(); at < kBlockKeys * kPieces; at += C.Threads()) {
    const Vec16 piece = values.Load16(at / kPieces * kPitch + at % kPieces * 8);
    REGARD_UNROLL
    for (int w = 0; w < 4; ++w) {
      found = found || IsNonFinite<C>(piece.word[w] & 0xffff) || IsNonFinite<C>(piece.word[w] >> 16);
    }
  }
  return BlockAny(found);
}

// Adds the non-finite values of columns column + 8 n + 2c, + 1 (n < kTiles) to the sums of rows g (o[n][0..1]) and g + 8
// (o[n][2..3]) where the row sees the key. Words of a lane, as Words below makes them: bit 16 half + 2 t + e is key
// 8 t + 2 c + e of row g + 8 half. A weight that is 0 makes NaN of them, as the product would.
template <TensorConfig C, int kTiles>
REGARD_DEVICE void AddNonFinite(float (&o)[kTiles][4], Shared<u16> values, int column, u32 seen, u32 weighty) {
  constexpr int kPitch = TensorLayout::Pitch(C.head_dim_v);
  const int lane = Lane(), c = lane % 4;
  REGARD_ROLLED
  for (int key = 0; key < kBlockKeys; ++key) {
    const int source = lane - c + key % 8 / 2, bit = key / 8 * 2 + key % 2;
    const u32 sees = ShuffleFrom(seen, source) >> bit, weighs = ShuffleFrom(weighty, source) >> bit;
    REGARD_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      REGARD_UNROLL
      for (int e = 0; e < 2; ++e) {
        const int at = column + n * 8 + c * 2 + e;
        if (at >= C.head_dim_v) continue;
        const u32 bits = values.Load(key * kPitch + at);
        if (!IsNonFinite<C>(bits)) continue;
        REGARD_UNROLL
        for (int half = 0; half < 2; ++half) {
          if ((sees >> (16 * half)) & 1) {
            const bool weight = (weighs >> (16 * half)) & 1;
            o[n][half * 2 + e] += weight ? Wide16<C>(bits) : FloatOf(0x7fffffffu);
          }
        }
      }
    }
  }
}

// Zeros in their place. Between two block barriers.
template <TensorConfig C>
REGARD_DEVICE void ClearNonFinite(Shared<u16> values) {
  constexpr int kPitch = TensorLayout::Pitch(C.head_dim_v);
  REGARD_ROLLED
  for (int at = ThreadIndex(); at < kBlockKeys * C.head_dim_v; at += C.Threads()) {
    const int place = at / C.head_dim_v * kPitch + at % C.head_dim_v;
    if (IsNonFinite<C>(values.Load(place))) values.Store(place, 0);
  }
}

}  // namespace regard::cuda::sm80
