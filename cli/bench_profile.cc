#include "cli/bench_profile.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/text_table.h"
#include "src/cpu/forward.h"

namespace regard::cli {
namespace {

constexpr double kSeconds = 0.2;  // of launches with time stamps
constexpr int kMostLaunches = 1000;
constexpr int kBarWidth = 40;  // of 100 %

// Time stamps on for the length of a scope.
class Stamps {
 public:
  explicit Stamps(int threads) : workers_(static_cast<std::size_t>(threads)) { cpu::ProfilePhases(workers_); }
  ~Stamps() { cpu::ProfilePhases({}); }
  Stamps(const Stamps&) = delete;
  Stamps& operator=(const Stamps&) = delete;

  double Ticks(int phase) const {  // of all threads
    double sum = 0;
    for (const cpu::PhaseTimes& worker : workers_) sum += static_cast<double>(worker.ticks[phase]);
    return sum;
  }

 private:
  std::vector<cpu::PhaseTimes> workers_;
};

std::string Bar(double percent) {
  std::string bar;
  for (int n = static_cast<int>(std::lround(percent / 100 * kBarWidth)); n > 0; --n) bar += "█";
  return bar;
}

}  // namespace

Profile ProfileOf(const PreparedCase& prepared, double launch_ms) {
  Profile profile;
  const std::string& kernel = prepared.plan().selection().kernel;
  if (!kernel.starts_with("cpu.")) {
    profile.why_not = kernel + " takes no time stamps; kernels named cpu.* do";
    return profile;
  }
  const Stamps stamps(prepared.plan().shape().threads);
  const double wanted = kSeconds * 1e3 / std::max(launch_ms, 1e-6);
  const int launches = static_cast<int>(std::clamp<double>(std::ceil(wanted), 1, kMostLaunches));
  for (; profile.launches < launches && !Interrupted(); ++profile.launches) prepared.Launch();

  double all = 0;
  for (int phase = 0; phase < cpu::kPhases; ++phase) all += stamps.Ticks(phase);
  if (all == 0) {
    profile.why_not = "no time stamps: the case is empty, the run was stopped, or this CPU has no counter for them";
    return profile;
  }
  const bool backward = prepared.plan().problem().phase == Phase::kBackward;
  for (int phase = 0; phase < cpu::kPhases; ++phase) {
    const double share = stamps.Ticks(phase) / all;
    const char* const name = (backward ? cpu::kBackwardPhaseNames : cpu::kPhaseNames)[phase];
    profile.phases.push_back({name, 100 * share, launch_ms * share});
  }
  return profile;
}

std::string ProfileText(const std::string& text, const std::string& kernel, const Profile& profile) {
  if (profile.phases.empty()) return fmt::format("\nprofile of {}: none; {}\n", text, profile.why_not);
  TextTable table({{"phase"}, {"of time", Align::kRight}, {"ms a launch", Align::kRight}, {""}});
  for (const Profile::Phase& phase : profile.phases) {
    table.Row(
        {phase.name, fmt::format("{:.1f} %", phase.percent), fmt::format("{:.4f}", phase.ms), Bar(phase.percent)});
  }
  return fmt::format("\nprofile of {}\n{}, {} launches with time stamps\n{}", text, kernel, profile.launches,
                     table.Text());
}

}  // namespace regard::cli
