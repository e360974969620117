#include "cli/perf_counters.h"

#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace regard::cli {
namespace {

struct Event {
  std::uint32_t type;
  std::uint64_t config;
};

enum { kCycles, kInstructions, kL1Misses, kL2Misses };

bool IsIntel() {
#if defined(__x86_64__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  __get_cpuid(0, &eax, &ebx, &ecx, &edx);
  return ebx == signature_INTEL_ebx;
#else
  return false;
#endif
}

// Linux has no common name for misses of L2. On AMD (Zen) its generic "cache misses" are those; on Intel these would be
// the last level's, and L2_RQSTS.MISS is event 0x24, mask 0x3f; on Arm L2D_CACHE_REFILL is event 0x17.
Event L2Event() {
#if defined(__aarch64__)
  return {PERF_TYPE_RAW, 0x17};
#else
  if (IsIntel()) return {PERF_TYPE_RAW, 0x3f24};
  return {PERF_TYPE_HARDWARE, PERF_COUNT_HW_CACHE_MISSES};
#endif
}

Event EventOf(std::size_t event) {
  switch (event) {
    case kCycles:
      return {PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES};
    case kInstructions:
      return {PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS};
    case kL1Misses:
      return {PERF_TYPE_HW_CACHE, PERF_COUNT_HW_CACHE_L1D | (PERF_COUNT_HW_CACHE_OP_READ << 8) |
                                      (PERF_COUNT_HW_CACHE_RESULT_MISS << 16)};
    default:
      return L2Event();
  }
}

perf_event_attr AttrOf(Event event) {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = event.type;
  attr.config = event.config;
  attr.disabled = 1;
  attr.exclude_kernel = 1;  // allowed at the usual perf_event_paranoid of 2
  attr.exclude_hv = 1;
  attr.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
  return attr;
}

std::string ParanoidLevel() {
  std::ifstream file("/proc/sys/kernel/perf_event_paranoid");
  std::string level;
  return file >> level ? level : "unknown";
}

}  // namespace

PerfSystem PerfSystem::Real() {
  PerfSystem system;
  system.open = [](const perf_event_attr& attr, pid_t thread) {
    const long fd = syscall(SYS_perf_event_open, &attr, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
    return Opened{static_cast<int>(fd), fd < 0 ? errno : 0};
  };
  system.enable = [](int fd, bool on) {
    if (on && ioctl(fd, PERF_EVENT_IOC_RESET, 0) != 0) return false;
    return ioctl(fd, on ? PERF_EVENT_IOC_ENABLE : PERF_EVENT_IOC_DISABLE, 0) == 0;
  };
  system.read = [](int fd, std::array<std::uint64_t, 3>* values) {
    return ::read(fd, values->data(), sizeof *values) == static_cast<ssize_t>(sizeof *values);
  };
  system.close = [](int fd) { ::close(fd); };
  return system;
}

PerfCounters::PerfCounters(const std::vector<pid_t>& threads, PerfSystem system) : system_(std::move(system)) {
  for (std::size_t event = 0; event < kEvents && why_not_.empty(); ++event) {
    const perf_event_attr attr = AttrOf(EventOf(event));
    for (const pid_t thread : threads) {
      const PerfSystem::Opened opened = system_.open(attr, thread);
      if (opened.fd >= 0) {
        fds_[event].push_back(opened.fd);
        continue;
      }
      if (opened.error == ESRCH) continue;  // that thread has ended
      if (event == kCycles) why_not_ = WhyNoCounters(opened.error);
      for (const int fd : fds_[event]) system_.close(fd);
      fds_[event].clear();
      break;
    }
  }
}

PerfCounters::~PerfCounters() {
  for (const auto& fds : fds_) {
    for (const int fd : fds) system_.close(fd);
  }
}

void PerfCounters::Start() {
  for (const auto& fds : fds_) {
    for (const int fd : fds) system_.enable(fd, true);
  }
}

Counts PerfCounters::Stop() {
  for (const auto& fds : fds_) {
    for (const int fd : fds) system_.enable(fd, false);
  }
  std::array<std::optional<double>, kEvents> sums;
  for (std::size_t event = 0; event < kEvents; ++event) {
    for (const int fd : fds_[event]) {
      std::array<std::uint64_t, 3> values{};
      if (!system_.read(fd, &values)) {
        sums[event].reset();
        break;
      }
      const auto [count, enabled, running] = values;
      const double scale = running > 0 ? static_cast<double>(enabled) / static_cast<double>(running) : 0;
      sums[event] = sums[event].value_or(0) + static_cast<double>(count) * scale;
    }
  }
  return {sums[kCycles], sums[kInstructions], sums[kL1Misses], sums[kL2Misses]};
}

std::vector<pid_t> ThreadsOfThisProcess() {
  std::vector<pid_t> threads;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task", error)) {
    threads.push_back(static_cast<pid_t>(std::atol(entry.path().filename().c_str())));
  }
  return threads;
}

std::string WhyNoCounters(int error) {
  const std::string number = std::to_string(error);
  const std::string said = "perf_event_open: " + std::string(std::strerror(error)) + " (errno " + number + "); ";
  switch (error) {
    case EACCES:
    case EPERM:
      return said + "kernel.perf_event_paranoid is " + ParanoidLevel() +
             ": set it to 2 or less with sysctl, or run with CAP_PERFMON; "
             "in a container its seccomp filter must allow the call too";
    case ENOENT:
    case ENODEV:
    case EOPNOTSUPP:
      return said + "this machine shows no hardware counters, as virtual machines do whose host passes none on: "
                    "run on the metal, or give the guest a virtual PMU";
    case ENOSYS:
      return said + "this kernel has no perf events, or a sandbox hides them: run on a kernel with CONFIG_PERF_EVENTS";
    case EMFILE:
      return said + "too many open files: raise ulimit -n or use fewer threads";
    default:
      return said + "see man perf_event_open";
  }
}

}  // namespace regard::cli
