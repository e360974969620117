// Parallel loops of the case machinery: on the default executor where the work is worth waking threads, else in place.
#pragma once

#include <cstdint>

#include "regard/executor.h"

namespace regard::cases {

inline constexpr double kParallelWork = 1 << 18;  // elements written, or multiply-adds: some tenths of a millisecond

// body(i) for i in [0, n); `work` counts all of them together.
template <class Body>
void ParallelFor(std::int64_t n, double work, Body&& body) noexcept {
  if (work < kParallelWork) {
    for (std::int64_t i = 0; i < n; ++i) body(i);
    return;
  }
  DefaultExecutor().For(n, [&](std::int64_t i, int) { body(i); });
}

}  // namespace regard::cases
