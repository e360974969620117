// From resolved sequences to a balanced list of tasks. No bit of the result depends on how work is cut here.
#pragma once

#include <cstdint>
#include <span>

#include "src/cpu/params.h"

namespace regard::cpu {

struct ScheduleLimits {
  std::int64_t tasks = 0;     // room for so many
  std::int64_t combines = 0;
  std::int64_t states = 0;    // decode states in the workspace
};

// Upper bounds for any launch of at most `batch` sequences of at most seq_q x seq_kv. `decode` false: no sequence is
// cut into splits, and no state is kept.
ScheduleLimits LimitsFor(std::int64_t batch, std::int64_t seq_q, std::int64_t seq_kv, std::int64_t heads_q,
                         std::int64_t heads_kv, bool decode);

struct Schedule {
  std::span<Task> tasks;        // longest first
  std::span<Combine> combines;
};

// Fills `tasks` and `combines` (sized by LimitsFor) and returns the used parts. Sequences of at most kDecodeMaxSeqQ
// queries go to decode where `decode` allows it, the rest to prefill.
Schedule MakeSchedule(const ForwardParams& p, bool decode, int threads, std::span<Task> tasks,
                      std::span<Combine> combines);

}  // namespace regard::cpu
