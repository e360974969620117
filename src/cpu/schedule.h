// From resolved sequences to balanced lists of tasks. No bit of the result depends on how work is cut here.
//
// A launch runs in waves, each a run of sequences in batch order whose decode states fit the workspace. Nearly every
// launch is one wave; more of them bound the workspace of many long sequences.
#pragma once

#include <cstdint>
#include <span>

#include "regard/problem.h"
#include "src/cpu/params.h"
#include "src/cpu/tune.h"

namespace regard::cpu {

struct ScheduleLimits {
  std::int64_t tasks = 0;  // room for so many
  std::int64_t combines = 0;
  std::int64_t states = 0;  // decode states in the workspace
  std::int64_t slots = 0;   // of KeptPanels: heads whose prefill tasks share packed keys and values
};

// Room for any wave of any launch within the bounds `p`. `decode` false: no sequence is cut into splits, and no state
// is kept.
ScheduleLimits LimitsFor(const Problem& p, bool decode, int threads, const Tuning& tuning);

struct Schedule {
  // Longest first, with more than one thread; a sequence's prefill tasks by its longest, as many kv heads at once as
  // there are threads.
  std::span<Task> tasks;
  std::span<Combine> combines;
};

// The waves of one launch. Sequences of at most kMaxDecodeQueries queries go to decode where `decode` allows it, the
// rest to prefill. Writes into `tasks` and `combines`, sized by LimitsFor, as `states` (the room for them) is.
class Scheduler {
 public:
  Scheduler(const ForwardParams& p, bool decode, int threads, const Tuning& tuning, std::span<Task> tasks,
            std::span<Combine> combines, std::int64_t states);
  bool Done() const { return next_ == p_.batch; }
  Schedule NextWave();

 private:
  // One sequence; false: no room is left in this wave. An empty wave has room for any.
  bool AddPrefill(std::int32_t b);
  bool AddDecode(std::int32_t b);

  const ForwardParams& p_;
  const std::int64_t decode_queries_;  // sequences of more go to prefill
  const int threads_;
  const std::int64_t share_;  // Tuning::kShare
  const std::span<Task> tasks_;
  const std::span<Combine> combines_;
  const std::int64_t states_;
  std::int64_t task_rows_ = 0;      // of a prefill task
  std::int64_t decode_splits_ = 0;  // of all sequences, counted as far as `threads`
  std::int64_t next_ = 0;           // sequence
  std::size_t used_ = 0, combined_ = 0;
  std::int64_t used_states_ = 0;
};

}  // namespace regard::cpu
