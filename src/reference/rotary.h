// Rotary position embedding of one head: pair (x1, x2) turns by the angle of its position,
//   x1' = x1 * cos - x2 * sin,   x2' = x2 * cos + x1 * sin,
// in f32, every product and every sum rounded on its own (no fused multiply-add). The caller rounds once more, to the
// element type.
#pragma once

#include <cstdint>

#include "regard/attention.h"
#include "regard/problem.h"

namespace regard::reference {

// Rotates x[0, 2 * columns of cos) in place. Pair k is (2k, 2k + 1) interleaved, (k, k + columns) half-split.
inline void Rotate(float* x, Rotary style, const TensorView& cos, const TensorView& sin, std::int64_t position) {
  const std::int64_t pairs = cos.shape[1];
  for (std::int64_t k = 0; k < pairs; ++k) {
    const float c = LoadFloat(cos.At(position, k), cos.dtype, 0);
    const float s = LoadFloat(sin.At(position, k), sin.dtype, 0);
    float& x1 = x[style == Rotary::kInterleaved ? 2 * k : k];
    float& x2 = x[style == Rotary::kInterleaved ? 2 * k + 1 : k + pairs];
    const float turned1 = x1 * c - x2 * s;
    const float turned2 = x2 * c + x1 * s;
    x1 = turned1;
    x2 = turned2;
  }
}

// The position that row i of q turns by: its own when the order of the keys matters, else the base for all.
inline std::int64_t QueryRotaryPosition(const AttentionOptions& o, std::int64_t base, std::int64_t i) {
  const bool ordered = o.causal || o.window_left || o.window_right || o.chunk;
  return ordered ? base + i : base;
}

}  // namespace regard::reference
