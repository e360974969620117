// What the oracle's exact and low precision passes share: where the twin rounds, and dot products.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "regard/dtype.h"
#include "regard/problem.h"

namespace regard::reference {

// The low precision twin rounds here; the exact one does not.
inline double Round(DType, double x) {
  return x;
}
inline float Round(DType type, float x) {
  if (type == DType::kF32) return x;
  std::uint32_t slot;
  StoreFloat(&slot, type, 0, x);
  return LoadFloat(&slot, type, 0);
}

// The type that scores and probabilities are rounded to in low precision: q's, or bf16 where q is fp8.
inline DType InputType(const Problem& p) {
  return IsFp8(p.dtype) ? DType::kBF16 : p.dtype;
}

// dots[n] = sum_c x[c] * rows[(index[n] - first) * dim + c], each one chain over c. Several rows advance together only
// because independent chains keep the processor busy; no sum depends on it.
template <class T>
void Dots(const float* x, std::int64_t dim, const float* rows, std::int64_t first,
          const std::vector<std::int64_t>& index, std::vector<T>& dots) {
  constexpr std::size_t kTogether = 8;
  for (std::size_t n = 0; n < index.size(); n += kTogether) {
    const std::size_t count = std::min(kTogether, index.size() - n);
    const float* row[kTogether];
    for (std::size_t u = 0; u < kTogether; ++u) row[u] = rows + (index[n + std::min(u, count - 1)] - first) * dim;
    T sum[kTogether] = {};
    for (std::int64_t c = 0; c < dim; ++c) {
      for (std::size_t u = 0; u < kTogether; ++u) sum[u] += static_cast<T>(x[c]) * static_cast<T>(row[u][c]);
    }
    std::copy(sum, sum + count, dots.begin() + static_cast<std::ptrdiff_t>(n));
  }
}

}  // namespace regard::reference
