// The counters over a system of which the tests play every part: sums over threads, shared counters, refusals.
#include "cli/perf_counters.h"

#include <gtest/gtest.h>
#include <linux/perf_event.h>

#include <cerrno>
#include <map>
#include <set>

namespace regard::cli {
namespace {

// Hands out descriptors and remembers what they are for. By default every event can be opened.
struct FakeSystem {
  struct Counter {
    perf_event_attr attr;
    pid_t thread;
    bool on = false;
  };
  std::map<int, Counter> counters;
  std::set<int> closed;
  std::function<int(const perf_event_attr&, pid_t)> error = [](const perf_event_attr&, pid_t) { return 0; };
  std::function<std::array<std::uint64_t, 3>(const Counter&)> values = [](const Counter&) {
    return std::array<std::uint64_t, 3>{100, 1, 1};
  };
  bool readable = true;

  PerfSystem System() {
    PerfSystem system;
    system.open = [this](const perf_event_attr& attr, pid_t thread) {
      if (const int e = error(attr, thread)) return PerfSystem::Opened{-1, e};
      const int fd = static_cast<int>(counters.size()) + 10;
      counters[fd] = {attr, thread};
      return PerfSystem::Opened{fd, 0};
    };
    system.enable = [this](int fd, bool on) { return counters.at(fd).on = on, true; };
    system.read = [this](int fd, std::array<std::uint64_t, 3>* out) {
      *out = values(counters.at(fd));
      return readable;
    };
    system.close = [this](int fd) { closed.insert(fd); };
    return system;
  }
};

bool IsCycles(const perf_event_attr& attr) {
  return attr.type == PERF_TYPE_HARDWARE && attr.config == PERF_COUNT_HW_CPU_CYCLES;
}
bool IsL1(const perf_event_attr& attr) {
  return attr.type == PERF_TYPE_HW_CACHE;
}

TEST(PerfCounters, SumEveryEventOverAllThreads) {
  FakeSystem fake;
  fake.values = [](const auto& counter) {
    const auto thread = static_cast<std::uint64_t>(counter.thread);
    return std::array<std::uint64_t, 3>{thread * (IsCycles(counter.attr) ? 10 : 1), 1, 1};
  };
  PerfCounters counters({3, 4}, fake.System());
  EXPECT_EQ(counters.why_not(), "");
  counters.Start();
  for (const auto& [fd, counter] : fake.counters) EXPECT_TRUE(counter.on);
  const Counts counts = counters.Stop();
  for (const auto& [fd, counter] : fake.counters) EXPECT_FALSE(counter.on);
  EXPECT_EQ(fake.counters.size(), 8u);
  EXPECT_EQ(counts.cycles, 70);
  EXPECT_EQ(counts.instructions, 7);
  EXPECT_EQ(counts.l1_misses, 7);
  EXPECT_EQ(counts.l2_misses, 7);
}

TEST(PerfCounters, AnEventThatHadTheCounterHalfTheTimeCountsTwice) {
  FakeSystem fake;
  fake.values = [](const auto&) { return std::array<std::uint64_t, 3>{100, 8, 4}; };
  PerfCounters counters({1}, fake.System());
  counters.Start();
  EXPECT_EQ(counters.Stop().cycles, 200);
}

TEST(PerfCounters, AnEventThatTheCpuLacksIsAbsentAndTheOthersCount) {
  FakeSystem fake;
  fake.error = [](const perf_event_attr& attr, pid_t thread) { return IsL1(attr) && thread == 2 ? ENOENT : 0; };
  PerfCounters counters({1, 2}, fake.System());
  EXPECT_EQ(counters.why_not(), "");
  counters.Start();
  const Counts counts = counters.Stop();
  EXPECT_EQ(counts.cycles, 200);
  EXPECT_FALSE(counts.l1_misses.has_value());
  EXPECT_EQ(counts.l2_misses, 200);
}

TEST(PerfCounters, WithoutCyclesThereIsAReasonAndNothingIsCounted) {
  FakeSystem fake;
  fake.error = [](const perf_event_attr&, pid_t) { return EACCES; };
  PerfCounters counters({1}, fake.System());
  EXPECT_NE(counters.why_not().find("perf_event_paranoid"), std::string::npos);
  counters.Start();
  EXPECT_FALSE(counters.Stop().cycles.has_value());
}

TEST(PerfCounters, AThreadThatHasEndedIsLeftOut) {
  FakeSystem fake;
  fake.error = [](const perf_event_attr&, pid_t thread) { return thread == 1 ? ESRCH : 0; };
  PerfCounters counters({1, 2}, fake.System());
  EXPECT_EQ(counters.why_not(), "");
  counters.Start();
  EXPECT_EQ(counters.Stop().cycles, 100);
}

TEST(PerfCounters, CountersThatCannotBeReadAreAbsent) {
  FakeSystem fake;
  fake.readable = false;
  PerfCounters counters({1}, fake.System());
  counters.Start();
  EXPECT_FALSE(counters.Stop().cycles.has_value());
}

TEST(PerfCounters, EveryDescriptorIsClosedInTheEnd) {
  FakeSystem fake;
  fake.error = [](const perf_event_attr& attr, pid_t thread) { return IsL1(attr) && thread == 2 ? ENOENT : 0; };
  { PerfCounters counters({1, 2}, fake.System()); }
  EXPECT_EQ(fake.closed.size(), fake.counters.size());
}

TEST(PerfCounters, OnlyTheProgramsOwnCodeIsCounted) {
  FakeSystem fake;
  const PerfCounters counters({1}, fake.System());
  for (const auto& [fd, counter] : fake.counters) {
    EXPECT_TRUE(counter.attr.exclude_kernel);
    EXPECT_TRUE(counter.attr.disabled);
  }
}

TEST(PerfCounters, EveryRefusalNamesItsErrnoAndAWayOut) {
  for (const int error : {EACCES, EPERM, ENOENT, ENODEV, EOPNOTSUPP, ENOSYS, EMFILE, EIO}) {
    const std::string why = WhyNoCounters(error);
    EXPECT_NE(why.find("errno " + std::to_string(error)), std::string::npos) << why;
    EXPECT_EQ(why.find('\n'), std::string::npos) << why;
    EXPECT_GT(why.size(), why.find("); ") + 10) << why;
  }
}

TEST(PerfCounters, TheCallingThreadIsOneOfThisProcess) {
  EXPECT_GE(ThreadsOfThisProcess().size(), 1u);
}

}  // namespace
}  // namespace regard::cli
