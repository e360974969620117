// The CPU's own counters around some launches: cycles, instructions, cache misses. Through Linux's perf_event_open,
// where machine and kernel let it be; elsewhere a sentence says why not and what to do.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

struct perf_event_attr;

namespace regard::cli {

// The system calls, replaceable in tests. Each returns what the real one does; `open` fails with errno in the pair.
struct PerfSystem {
  struct Opened {
    int fd = -1;
    int error = 0;  // errno where fd < 0
  };
  std::function<Opened(const perf_event_attr&, pid_t thread)> open;
  std::function<bool(int fd, bool on)> enable;                                 // on: from zero
  std::function<bool(int fd, std::array<std::uint64_t, 3>* values)> read;      // count, time enabled, time running
  std::function<void(int fd)> close;
  static PerfSystem Real();
};

// Sums over all threads. An event that this CPU has not is absent.
struct Counts {
  std::optional<double> cycles, instructions, l1_misses, l2_misses;
};

class PerfCounters {
 public:
  // Opens counters on every thread in `threads` (ThreadsOfThisProcess(), once all workers have started).
  explicit PerfCounters(const std::vector<pid_t>& threads, PerfSystem system = PerfSystem::Real());
  ~PerfCounters();
  PerfCounters(const PerfCounters&) = delete;
  PerfCounters& operator=(const PerfCounters&) = delete;

  // Empty where cycles can be counted; else why not, and the way out, in one line.
  const std::string& why_not() const { return why_not_; }
  // What happens between the two. Events that shared a counter are scaled to the whole time.
  void Start();
  Counts Stop();

 private:
  static constexpr std::size_t kEvents = 4;
  PerfSystem system_;
  std::array<std::vector<int>, kEvents> fds_;  // by event, one a thread
  std::string why_not_;
};

std::vector<pid_t> ThreadsOfThisProcess();

// The line for an errno of perf_event_open on cycles.
std::string WhyNoCounters(int error);

}  // namespace regard::cli
