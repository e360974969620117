#include "src/backend/work.h"

#include <cstdint>
#include <vector>

#include "src/problem/extent.h"
#include "src/problem/lengths.h"

namespace regard {
namespace {

// The sum of a batch's lengths, from its list where it has one.
double Sum(const Problem& p, const LengthSpec& given, std::int64_t each,
           std::vector<std::int64_t> (*lengths)(const Problem&)) {
  if (given.empty()) return static_cast<double>(p.batch) * static_cast<double>(each);
  double sum = 0;
  for (const std::int64_t length : lengths(p)) sum += static_cast<double>(length);
  return sum;
}

}  // namespace

Cost WorkOf(const Problem& p) {
  Cost cost;
  const bool backward = p.phase == Phase::kBackward;
  const double per_pair = backward ? 2.0 * static_cast<double>(3 * p.head_dim + 2 * p.head_dim_v)
                                   : 2.0 * static_cast<double>(p.head_dim + p.head_dim_v + (p.qv ? p.head_dim_v : 0));
  cost.flops = VisiblePairs(p) * static_cast<double>(p.heads_q) * per_pair;
  const double keys = Sum(p, p.lens, p.seq_kv, KeyLengths);
  const double rows = Sum(p, p.qlens, p.seq_q, QueryLengths) * static_cast<double>(p.heads_q);
  cost.bytes =
      keys * static_cast<double>(p.heads_kv * (p.head_dim + p.head_dim_v)) * static_cast<double>(SizeOf(p.kv_dtype)) +
      rows * static_cast<double>(p.head_dim * static_cast<std::int64_t>(SizeOf(p.dtype)) +
                                 p.head_dim_v * static_cast<std::int64_t>(SizeOf(p.OutType())));
  if (backward) {  // dout and out; the gradients
    cost.bytes += rows * static_cast<double>(2 * p.head_dim_v * static_cast<std::int64_t>(SizeOf(p.OutType()))) +
                  (keys * static_cast<double>(p.heads_kv * (p.head_dim + p.head_dim_v)) +
                   rows * static_cast<double>(p.head_dim)) *
                      static_cast<double>(SizeOf(p.GradType()));
  }
  return cost;
}

}  // namespace regard
