#include "src/cpu/schedule.h"

#include <algorithm>

namespace regard::cpu {
namespace {

std::int64_t CeilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// KV elements below which a decode step stays on the calling thread: waking a second one costs a few microseconds, and
// 256 Ki elements of bf16 take about 25 us at the 20 GB/s that one Zen 4 thread reads.
constexpr double kWorthSharing = 256 * 1024;

bool Decodes(const ForwardParams& p, const Seq& s) {
  return s.seq_q <= kDecodeMaxSeqQ && s.seq_q * p.group <= kDecodeRows;
}

// Rows of a prefill task: four tasks a thread at least, as far as that leaves kMinTaskRows.
std::int64_t TaskRows(std::int64_t all_rows, int threads) {
  const std::int64_t share = CeilDiv(all_rows, std::int64_t{4} * threads);
  return std::clamp<std::int64_t>(CeilDiv(share, kMinTaskRows) * kMinTaskRows, kMinTaskRows, kTaskRows);
}

void AddPrefill(const ForwardParams& p, std::int32_t b, std::int64_t task_rows, std::span<Task> tasks,
                std::size_t& used) {
  const Seq& s = p.seqs[b];
  const std::int64_t rows = s.seq_q * p.group;
  for (std::int32_t h = 0; h < p.heads_kv; ++h) {  // a head's K and V stay in the caches from task to task
    for (std::int64_t begin = 0; begin < rows; begin += task_rows) {
      const std::int64_t end = std::min(begin + task_rows, rows);
      const Range first = VisibleRange(p, s, begin / p.group), last = VisibleRange(p, s, (end - 1) / p.group);
      const std::int64_t keys = std::max<std::int64_t>(last.end - first.begin, 0);
      const float cost = static_cast<float>(keys) * static_cast<float>(end - begin);
      tasks[used++] = {Task::kPrefill, b, h, h + 1, begin, end, -1, cost};
    }
  }
}

}  // namespace

ScheduleLimits LimitsFor(std::int64_t batch, std::int64_t seq_q, std::int64_t seq_kv, std::int64_t heads_q,
                         std::int64_t heads_kv, bool decode) {
  const std::int64_t group = heads_q / heads_kv;
  const std::int64_t prefill = heads_kv * CeilDiv(seq_q * group, kMinTaskRows);
  const std::int64_t splits = decode ? std::max<std::int64_t>(CeilDiv(seq_kv, kSplitTokens), 1) : 0;
  ScheduleLimits limits;
  limits.tasks = batch * std::max(prefill, splits * heads_kv);
  if (decode && splits > 1) {
    limits.combines = batch;
    limits.states = batch * splits * heads_q * std::min<std::int64_t>(seq_q, kDecodeMaxSeqQ);
  }
  return limits;
}

Schedule MakeSchedule(const ForwardParams& p, bool decode, int threads, std::span<Task> tasks,
                      std::span<Combine> combines) {
  std::size_t used = 0, combined = 0;
  std::int64_t states = 0, total_splits = 0;
  const auto visible = [&](const Seq& s) {  // keys that some query sees
    Range r{0, 0};
    for (std::int64_t i = 0; i < s.seq_q; ++i) {
      const Range row = VisibleRange(p, s, i);
      if (row.begin >= row.end) continue;
      r = r.begin < r.end ? Range{std::min(r.begin, row.begin), std::max(r.end, row.end)} : row;
    }
    return r;
  };
  const auto splits_of = [](Range r) {
    return r.begin < r.end ? CeilDiv(r.end, kSplitTokens) - r.begin / kSplitTokens : 0;
  };
  std::int64_t prefill_rows = 0;
  for (std::int64_t b = 0; b < p.batch; ++b) {
    if (decode && Decodes(p, p.seqs[b])) {
      total_splits += std::max<std::int64_t>(splits_of(visible(p.seqs[b])), 1);
    } else {
      prefill_rows += p.seqs[b].seq_q * p.heads_q;
    }
  }
  const std::int64_t task_rows = TaskRows(prefill_rows, threads);
  for (std::int32_t b = 0; b < p.batch; ++b) {
    const Seq& s = p.seqs[b];
    if (s.seq_q == 0) continue;
    if (!decode || !Decodes(p, s)) {
      AddPrefill(p, b, task_rows, tasks, used);
      continue;
    }
    const Range keys = visible(s);
    const std::int64_t splits = splits_of(keys);
    const std::int64_t first = keys.begin < keys.end ? keys.begin / kSplitTokens : 0;
    // Heads of a task: as many as its scores have room for; fewer only where threads would stand idle.
    const std::int64_t group_rows = s.seq_q * p.group;
    std::int64_t parts = CeilDiv(p.heads_kv, std::max<std::int64_t>(kDecodeRows / group_rows, 1));
    const double work = static_cast<double>(keys.end - keys.begin) * static_cast<double>(p.heads_kv) *
                        (p.head_dim + p.head_dim_v);
    if (total_splits < threads && work > kWorthSharing) parts = std::max(parts, CeilDiv(threads, total_splits));
    parts = std::min(parts, p.heads_kv);
    const std::int64_t heads = CeilDiv(p.heads_kv, parts);
    const std::int64_t state = splits > 1 ? states : -1;
    for (std::int64_t n = 0; n < std::max<std::int64_t>(splits, 1); ++n) {
      const std::int64_t begin = std::max((first + n) * kSplitTokens, keys.begin);
      const std::int64_t end = std::min((first + n + 1) * kSplitTokens, keys.end);
      for (std::int64_t h = 0; h < p.heads_kv; h += heads) {
        const std::int64_t h_end = std::min(h + heads, p.heads_kv);
        tasks[used++] = {Task::kDecode, b, static_cast<std::int32_t>(h), static_cast<std::int32_t>(h_end),
                         first + n, first + n + (splits > 0 ? 1 : 0),
                         state < 0 ? -1 : state + n * p.heads_q * s.seq_q,
                         static_cast<float>(end - begin) * static_cast<float>((h_end - h) * group_rows)};
      }
    }
    if (splits > 1) {
      combines[combined++] = {b, static_cast<std::int32_t>(splits), state};
      states += splits * p.heads_q * s.seq_q;
    }
  }
  tasks = tasks.first(used);
  if (threads > 1) {
    std::sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) {
      if (a.kind != b.kind) return a.kind < b.kind;
      return a.cost > b.cost;
    });
  }
  return {tasks, combines.first(combined)};
}

}  // namespace regard::cpu
