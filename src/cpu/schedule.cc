#include "src/cpu/schedule.h"

#include <algorithm>

namespace regard::cpu {
namespace {

std::int64_t CeilDiv(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// A wave that the workspace cuts off holds at least so many tasks a thread, and splits with states for one query of
// every head: waiting for the last task of a wave then costs under half a per cent of it.
constexpr std::int64_t kWaveTasks = 1024;  // x 48 bytes
constexpr std::int64_t kWaveSplits = 256;  // x 32 heads x 130 floats = 4 MiB a thread

// Prefill tasks a thread at least, as far as that leaves min_task_rows.
constexpr std::int64_t kTasksAThread = 4;

// Queries that a decode sequence may have: its group rows of one kv head fit a task.
std::int64_t DecodeQueries(std::int64_t group) {
  return std::min<std::int64_t>(kMaxDecodeQueries, kDecodeRows / std::max<std::int64_t>(group, 1));
}

// A task's cost is its time in pairs of query row and key. Prefill is bound by arithmetic, decode by reading, a key of
// one kv head at a time: Zen 4, bf16, d=128, one thread: 512 bytes at 21 GB/s take 24 ns, a pair at 185 GFLOP/s 2.8 ns.
constexpr float kReadOverPair = 9;

// Keys [begin, end) that some query of the sequence sees.
Range VisibleOfAll(const ForwardParams& p, const Seq& s) {
  Range all{0, 0};
  for (std::int64_t i = 0; i < s.seq_q; ++i) {
    const Range row = VisibleRange(p, s, i);
    if (row.begin >= row.end) continue;
    all = all.begin < all.end ? Range{std::min(all.begin, row.begin), std::max(all.end, row.end)} : row;
  }
  return all;
}

std::int64_t SplitsOf(Range keys, std::int64_t split_tokens) {
  return keys.begin < keys.end ? CeilDiv(keys.end, split_tokens) - keys.begin / split_tokens : 0;
}

// Longest first, prefill tasks by the longest of their sequence and then a kv head for every thread at once, so that each
// finds a head to pack and the other threads what it packed (tile/kept.h); those of equal cost as they were made, head by
// head and split by split. Alternating prefill and decode, so that some threads read while others compute, measured no
// better (Zen 4, 2 threads, 2 prefills of 1024 with 30 decodes over 4096: in either order 1.00 of the time that the parts
// take one by one).
struct StartsBefore {
  std::int64_t threads;
  bool operator()(const Task& a, const Task& b) const {
    if (a.lead != b.lead) return a.lead > b.lead;
    if (a.b != b.b) return a.b < b.b;
    if (a.kind == Task::kDecode) return a.begin < b.begin;
    const std::int64_t turn_a = a.head_begin / threads, turn_b = b.head_begin / threads;
    if (turn_a != turn_b) return turn_a < turn_b;
    if (a.cost != b.cost) return a.cost > b.cost;
    return a.head_begin != b.head_begin ? a.head_begin < b.head_begin : a.begin < b.begin;
  }
};

}  // namespace

ScheduleLimits LimitsFor(const Problem& p, bool decode, int threads, const Tuning& tuning) {
  // Tasks have task_rows, or fewer but then so many that each thread has kTasksAThread, a part of one more for each head.
  const std::int64_t rows = p.seq_q * p.Group(), least = p.heads_kv * CeilDiv(rows, tuning[Tuning::kTaskRows]);
  const std::int64_t prefill = std::min(p.heads_kv * CeilDiv(rows, tuning[Tuning::kMinTaskRows]),
                                        std::max(least, kTasksAThread * threads + p.heads_kv));
  const std::int64_t splits = decode ? std::max<std::int64_t>(CeilDiv(p.seq_kv, tuning[Tuning::kSplit]), 1) : 0;
  const std::int64_t tasks = std::max(prefill, splits * p.heads_kv);  // of one sequence
  ScheduleLimits limits;
  limits.tasks = std::min(p.batch * tasks, std::max(tasks, kWaveTasks * threads));
  const bool shares = prefill > p.heads_kv && !(decode && p.seq_q <= DecodeQueries(p.Group()));
  if (shares) limits.slots = std::min(p.batch * p.heads_kv, std::int64_t{threads});
  if (decode && splits > 1) {
    const std::int64_t states = splits * p.heads_q * std::min(p.seq_q, DecodeQueries(p.Group()));
    limits.combines = std::min(p.batch, limits.tasks);
    limits.states = std::min(p.batch * states, std::max(states, kWaveSplits * threads * p.heads_q));
  }
  return limits;
}

Scheduler::Scheduler(const ForwardParams& p, bool decode, int threads, const Tuning& tuning, std::span<Task> tasks,
                     std::span<Combine> combines, std::int64_t states)
    : p_(p),
      decode_queries_(decode ? DecodeQueries(p.group) : -1),
      threads_(threads),
      share_(tuning[Tuning::kShare]),
      tasks_(tasks),
      combines_(combines),
      states_(states) {
  std::int64_t prefill_rows = 0;
  for (std::int64_t b = 0; b < p.batch; ++b) {
    const Seq& s = p.seqs[b];
    if (s.seq_q > decode_queries_) {
      prefill_rows += s.seq_q * p.heads_q;
    } else if (decode_splits_ < threads) {
      decode_splits_ += std::max<std::int64_t>(SplitsOf(VisibleOfAll(p, s), p.split_tokens), 1);
    }
  }
  const std::int64_t least = tuning[Tuning::kMinTaskRows], share = CeilDiv(prefill_rows, kTasksAThread * threads);
  task_rows_ = std::clamp(CeilDiv(share, least) * least, least, tuning[Tuning::kTaskRows]);
}

bool Scheduler::AddPrefill(std::int32_t b) {
  const Seq& s = p_.seqs[b];
  const std::int64_t rows = s.seq_q * p_.group;
  if (CeilDiv(rows, task_rows_) * p_.heads_kv > static_cast<std::int64_t>(tasks_.size() - used_)) return false;
  const std::size_t first_task = used_;
  for (std::int32_t h = 0; h < p_.heads_kv; ++h) {  // a head's K and V stay in the caches from task to task
    for (std::int64_t begin = 0; begin < rows; begin += task_rows_) {
      const std::int64_t end = std::min(begin + task_rows_, rows);
      const Range first = VisibleRange(p_, s, begin / p_.group), last = VisibleRange(p_, s, (end - 1) / p_.group);
      const std::int64_t keys = std::max<std::int64_t>(last.end - first.begin, 0);
      const float cost = static_cast<float>(keys) * static_cast<float>(end - begin);
      tasks_[used_++] = {Task::kPrefill, b, h, h + 1, begin, end, -1, cost, cost};
    }
  }
  const std::span<Task> added = tasks_.subspan(first_task, used_ - first_task);
  float lead = 0;
  for (const Task& task : added) lead = std::max(lead, task.cost);
  for (Task& task : added) task.lead = lead;
  return true;
}

bool Scheduler::AddDecode(std::int32_t b) {
  const Seq& s = p_.seqs[b];
  const Range keys = VisibleOfAll(p_, s);
  const std::int64_t splits = SplitsOf(keys, p_.split_tokens);
  const std::int64_t first = splits > 0 ? keys.begin / p_.split_tokens : 0;
  // Heads of a task: as many as its scores have room for; fewer only where threads would stand idle.
  const std::int64_t group_rows = s.seq_q * p_.group;
  std::int64_t parts = CeilDiv(p_.heads_kv, std::max<std::int64_t>(kDecodeRows / group_rows, 1));
  const std::int64_t elements = (keys.end - keys.begin) * p_.heads_kv * (p_.head_dim + p_.head_dim_v);
  if (decode_splits_ < threads_ && elements > share_) parts = std::max(parts, CeilDiv(threads_, decode_splits_));
  parts = std::min(parts, p_.heads_kv);
  const std::int64_t heads = CeilDiv(p_.heads_kv, parts);
  parts = CeilDiv(p_.heads_kv, heads);

  const std::int64_t turns = std::max<std::int64_t>(splits, 1), state_row = p_.heads_q * s.seq_q;
  if (turns * parts > static_cast<std::int64_t>(tasks_.size() - used_)) return false;
  if (splits > 1 && splits * state_row > states_ - used_states_) return false;
  for (std::int64_t n = 0; n < turns; ++n) {
    const std::int64_t begin = std::max((first + n) * p_.split_tokens, keys.begin);
    const std::int64_t end = std::min((first + n + 1) * p_.split_tokens, keys.end);
    for (std::int64_t h = 0; h < p_.heads_kv; h += heads) {
      const std::int64_t h_end = std::min(h + heads, p_.heads_kv);
      const float cost = static_cast<float>(end - begin) * static_cast<float>(h_end - h) *
                         std::max(kReadOverPair, static_cast<float>(group_rows));
      tasks_[used_++] = {Task::kDecode,
                         b,
                         static_cast<std::int32_t>(h),
                         static_cast<std::int32_t>(h_end),
                         first + n,
                         first + n + (splits > 0 ? 1 : 0),
                         splits > 1 ? used_states_ + n * state_row : -1,
                         cost,
                         cost};
    }
  }
  if (splits > 1) {
    combines_[combined_++] = {b, static_cast<std::int32_t>(splits), used_states_};
    used_states_ += splits * state_row;
  }
  return true;
}

Schedule Scheduler::NextWave() {
  used_ = combined_ = 0;
  used_states_ = 0;
  for (; next_ < p_.batch; ++next_) {
    const std::int64_t queries = p_.seqs[next_].seq_q;
    if (queries == 0) continue;
    const auto b = static_cast<std::int32_t>(next_);
    if (!(queries > decode_queries_ ? AddPrefill(b) : AddDecode(b))) break;
  }
  const std::span<Task> tasks = tasks_.first(used_);
  if (threads_ > 1) std::sort(tasks.begin(), tasks.end(), StartsBefore{threads_});
  return {tasks, combines_.first(combined_)};
}

}  // namespace regard::cpu
