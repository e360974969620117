// The (B, Hq, Sq, Skv) tensors that attention itself never holds: its probabilities, and what dropout keeps of them.
#include <algorithm>

#include "regard/executor.h"
#include "src/core/fp_mode.h"
#include "src/reference/reference.h"
#include "src/reference/row.h"

namespace regard::reference {
namespace {

// row(b, h, i, first): every used query row; `first` is its entry for key 0.
template <class Row>
void ForEachQuery(const Problem& p, const std::vector<Sequence>& sequences, std::int64_t b, std::int64_t h_begin,
                  std::int64_t h_end, Row&& row) {
  const std::int64_t queries = sequences[b].seq_q;
  DefaultExecutor().For((h_end - h_begin) * queries, [&](std::int64_t n, int) noexcept {
    const FpModeGuard mode;
    const std::int64_t h = h_begin + n / queries, i = n % queries;
    row(h, i, ((b * p.heads_q + h) * p.seq_q + i) * p.seq_kv);
  });
}

}  // namespace

void Probabilities(const Problem& p, const AttentionArgs& args, const std::vector<Sequence>& sequences, float* to) {
  const Call call{p, args, sequences};
  std::fill_n(to, p.batch * p.heads_q * p.seq_q * p.seq_kv, 0.0f);
  for (std::int64_t b = 0; b < p.batch; ++b) {
    if (sequences[b].seq_q == 0) continue;
    for (std::int64_t kv_head = 0; kv_head < p.heads_kv; ++kv_head) {
      const KvHead kv = LoadKvHead(call, b, kv_head, 0, sequences[b].seq_q);
      ForEachQuery(p, sequences, b, kv_head * p.Group(), (kv_head + 1) * p.Group(),
                   [&](std::int64_t h, std::int64_t i, std::int64_t first) {
                     const RowSoftmax<double> row = SoftmaxRow<double>(call, kv, b, h, i);
                     for (std::size_t n = 0; n < row.keys.size(); ++n) {
                       to[first + row.keys[n]] = static_cast<float>(row.probability[n]);
                     }
                   });
    }
  }
}

void KeepMask(const Problem& p, const AttentionArgs& args, const std::vector<Sequence>& sequences, std::uint8_t* to) {
  const Call call{p, args, sequences};
  std::fill_n(to, p.batch * p.heads_q * p.seq_q * p.seq_kv, std::uint8_t{0});
  for (std::int64_t b = 0; b < p.batch; ++b) {
    if (sequences[b].seq_q == 0) continue;
    const Sequence& s = sequences[b];
    ForEachQuery(p, sequences, b, 0, p.heads_q, [&](std::int64_t h, std::int64_t i, std::int64_t first) {
      for (std::int64_t j = s.leftpad; j < s.seq_kv; ++j) to[first + j] = Keeps(call, b, h, i, j);
    });
  }
}

}  // namespace regard::reference
