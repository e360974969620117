// The end of a softmax: states of splits fold left to right, a sink comes last, then one division.
// A state (o, m, l) stands for sums o and l of weights exp2(x - m) over its keys, x a score times log2(e); no key yet:
// m = -inf, o = l = 0.
#pragma once

#include "base/params.h"
#include "ptx/math.h"
#include "tile/score.h"

namespace regard::cuda {

// The maximum to subtract: any finite number where there is no key, so that a weight is 0 and not NaN.
REGARD_DEVICE float SafeMaximum(float m) { return m == -Infinity() ? 0.0f : m; }

// How two states meet: both are taken to the larger maximum.
struct Fold {
  float m;           // of the result
  float left, right; // factors of the two sides
};
REGARD_DEVICE Fold FoldOf(float m_left, float m_right) {
  const float m = Larger(m_left, m_right), base = SafeMaximum(m);
  return {m, Exp2(m_left - base), Exp2(m_right - base)};
}
// Any component of o, and l.
REGARD_DEVICE float Folded(const Fold& f, float left, float right) { return Fma(left, f.left, right * f.right); }

struct RowEnd {
  float factor = 0;  // out = o * factor
  float lse = 0;     // natural
};

// The row's sink, times log2(e); -inf without one.
REGARD_DEVICE float SinkOf(const Options& o, int head) {
  return o.sink == nullptr ? -Infinity() : LoadElement(o.sink, o.sink_type, head) * kLog2E;
}

// `scale` is what multiplies the values: v's descale, and 1 / (1 - p).
REGARD_DEVICE RowEnd EndRow(float m, float l, float sink, float scale) {
  const float top = Larger(m, sink), base = SafeMaximum(top);
  const float kept = Exp2(m - base), total = Fma(l, kept, Exp2(sink - base));
  if (total == 0) return {0.0f, -Infinity()};
  return {Divide(kept * scale, total), (base + Log2(total)) * kLn2};
}

}  // namespace regard::cuda
