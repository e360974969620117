// Merge of two partial softmax states per row:
//   m = max(l_a, l_b), w = exp(l - m), o = (w_a o_a + w_b o_b) / (w_a + w_b), l = m + log(w_a + w_b).
// A state with l = -inf is the identity: its o is not read.
#include <algorithm>
#include <cmath>
#include <limits>

#include "src/core/fp_mode.h"
#include "src/reference/reference.h"

namespace regard::reference {

void Merge(const double* o_a, const double* l_a, const double* o_b, const double* l_b, std::int64_t n, std::int64_t dv,
           double* o, double* l) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  const FpModeGuard mode;
  for (std::int64_t row = 0; row < n; ++row) {
    const double a = l_a[row], b = l_b[row];
    const double m = std::isnan(a) || a > b ? a : b;  // NaN in either stays
    const double w_a = a == kNone ? 0 : std::exp(a - m);
    const double w_b = b == kNone ? 0 : std::exp(b - m);
    const double total = w_a + w_b;
    for (std::int64_t c = row * dv; c < (row + 1) * dv; ++c) {
      const double part_a = a == kNone ? 0 : w_a * o_a[c];
      const double part_b = b == kNone ? 0 : w_b * o_b[c];
      o[c] = total == 0 ? 0 : (part_a + part_b) / total;
    }
    l[row] = total == 0 ? kNone : m + std::log(total);
  }
}

}  // namespace regard::reference
