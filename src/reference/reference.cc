// The oracle over all rows: every query of every head, each on its own (row.cc).
//
// K and V of one kv head are turned to f32 once (exactly: no type is wider) and serve the heads of its group. Allocates
// as it likes: it is the judge, not a fast kernel. Rows that no sequence owns keep out 0 and lse -inf.
#include "src/reference/reference.h"

#include <algorithm>
#include <limits>

#include "src/reference/each_row.h"
#include "src/reference/row.h"

namespace regard::reference {
namespace {

RowStats Attend(const Call& call, const KvHead& kv, std::int64_t b, std::int64_t h, std::int64_t i, Rounding rounding,
                double* out) {
  return rounding == Rounding::kExact ? AttendRow<double>(call, kv, b, h, i, out)
                                      : AttendRow<float>(call, kv, b, h, i, out);
}

double RowWork(const Call& call, const KvHead& kv) {
  return static_cast<double>(kv.end - kv.begin) * static_cast<double>(call.D() + call.Dv());
}

}  // namespace

Result Forward(const Problem& p, const AttentionArgs& args, const std::vector<Sequence>& sequences, Rounding rounding) {
  const Call call{p, args, sequences};
  const bool packed = args.q.rank == 3;
  const std::int64_t heads = p.heads_q, group = p.Group(), dv = p.head_dim_v;
  const std::int64_t seq = args.q.shape[packed ? 0 : 1];  // all rows of packed q
  const std::int64_t rows = packed ? seq : args.q.shape[0] * seq;

  Result result;
  result.out.assign(rows * heads * dv, 0.0);
  result.lse.assign(rows * heads, -std::numeric_limits<double>::infinity());

  for (std::int64_t b = 0; b < BatchOf(args); ++b) {
    const Sequence& s = sequences[b];
    if (s.seq_q == 0) continue;
    for (std::int64_t kv_head = 0; kv_head < p.heads_kv; ++kv_head) {
      const KvHead kv = LoadKvHead(call, b, kv_head, 0, s.seq_q);
      const std::int64_t count = s.seq_q * group;
      ForEachRow(count, static_cast<double>(count) * RowWork(call, kv), [&](std::int64_t n) {
        const std::int64_t i = n / group, h = kv_head * group + n % group;
        const std::int64_t row = packed ? s.q_row + i : b * seq + i;
        const RowStats stats = Attend(call, kv, b, h, i, rounding, &result.out[(row * heads + h) * dv]);
        result.lse[packed ? h * seq + row : (b * heads + h) * seq + i] = stats.lse;
      });
    }
  }
  return result;
}

void ForwardRows(const Problem& p, const AttentionArgs& args, const std::vector<Sequence>& sequences, std::int64_t b,
                 std::int64_t h, std::int64_t i_begin, std::int64_t i_end, Rounding rounding, double* out, double* lse,
                 double* max_abs_score) {
  const Call call{p, args, sequences};
  const std::int64_t count = i_end - i_begin;
  const KvHead kv = LoadKvHead(call, b, h / p.Group(), i_begin, i_end);
  std::vector<double> largest(count);
  ForEachRow(count, static_cast<double>(count) * RowWork(call, kv), [&](std::int64_t n) {
    const RowStats stats = Attend(call, kv, b, h, i_begin + n, rounding, out + n * p.head_dim_v);
    lse[n] = stats.lse;
    largest[n] = stats.max_abs_score;
  });
  *max_abs_score = 0;
  for (const double x : largest) *max_abs_score = std::max(*max_abs_score, x);
}

}  // namespace regard::reference
