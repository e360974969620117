// Loops of the oracle over independent rows.
#pragma once

#include <cstdint>

#include "regard/executor.h"
#include "src/core/fp_mode.h"

namespace regard::reference {

// Below this many multiplications threads cost more than they save.
inline constexpr double kParallelWork = 1 << 18;

// row(n) for n in [0, rows), on several threads where `work` is worth it. Rows are independent, so no bit depends on it.
template <class Row>
void ForEachRow(std::int64_t rows, double work, Row&& row) {
  const auto task = [&row](std::int64_t n, int) noexcept {
    const FpModeGuard mode;
    row(n);
  };
  if (work >= kParallelWork) {
    DefaultExecutor().For(rows, task);
  } else {
    for (std::int64_t n = 0; n < rows; ++n) task(n, 0);
  }
}

}  // namespace regard::reference
