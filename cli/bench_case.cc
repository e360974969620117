#include "cli/bench_case.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "cli/bench_roof.h"
#include "cli/commands.h"
#include "cli/page_kind.h"

namespace regard::cli {
namespace {

constexpr double kShortestTurn = 5e-4;  // launches shorter than this are timed in bundles
constexpr double kEvenTurn = 0.1;       // beside a longer case, a short one's bundle lasts up to this long
constexpr double kLongLaunch = 4;       // a launch of so many seconds needs no warm-up: its first one counts
constexpr int kShortTurns = 5;           // of a short case beside such a launch
constexpr int kLeastRounds = 3, kMostRounds = 2000, kMostLaunches = 1000;

// Seconds of one launch in a bundle: the median over so many turns.
double Turns(const PreparedCase& prepared, int launches, int turns) {
  std::vector<double> seconds;
  for (int turn = 0; turn < turns && (turn == 0 || !Interrupted()); ++turn) {
    seconds.push_back(prepared.Seconds(launches));
  }
  return Quantile(seconds, 0.5);
}

// Page tables, the executor's threads, the clock; and how long a launch takes: the fastest of up to three.
double WarmUp(const PreparedCase& prepared, double seconds) {
  double fastest = 1e30, spent = 0;
  for (int i = 0; i < 3 && !Interrupted() && spent <= seconds; ++i) {
    const double took = prepared.Seconds(1);
    fastest = std::min(fastest, took);
    spent += took;
  }
  return fastest;
}

// Launches of each case that make a turn.
std::vector<int> Bundles(const std::vector<double>& launch_seconds) {
  const double longest = *std::max_element(launch_seconds.begin(), launch_seconds.end());
  const double turn = std::max(kShortestTurn, std::min(longest, kEvenTurn));
  std::vector<int> bundles;
  for (const double seconds : launch_seconds) {
    bundles.push_back(std::clamp(static_cast<int>(std::ceil(turn / seconds)), 1, kMostLaunches));
  }
  return bundles;
}

void Count(const PreparedCase& prepared, int launches, BenchResult* result) {
  PerfCounters counters(ThreadsOfThisProcess());
  result->no_counters = counters.why_not();
  if (!result->no_counters.empty() || result->pairs == 0) return;
  counters.Start();
  for (int i = 0; i < launches; ++i) prepared.Launch();
  Counts counts = counters.Stop();
  for (auto* count : {&counts.cycles, &counts.instructions, &counts.l1_misses, &counts.l2_misses}) {
    if (*count) **count /= launches * result->pairs;
  }
  result->counts = counts;
}

void CheckOutputs(const std::vector<PreparedCase*>& cases, BenchResult* result) {
  for (const PreparedCase* prepared : cases) {
    if (Interrupted()) return;
    const cases::Accuracy accuracy = prepared->Check();
    if (!result->checked || (result->accuracy.ok() && !accuracy.ok())) result->accuracy = accuracy;
    result->checked = true;
  }
}

BenchResult Described(const PreparedCase& first, const BenchSettings& settings) {
  BenchResult result;
  result.text = first.text();
  result.threads = settings.threads;
  result.kernel = first.plan().selection().kernel;
  result.workspace_bytes = first.plan().workspace_bytes();
  const Work& work = first.work();
  result.pairs = work.pairs;
  result.intensity = work.bytes > 0 ? work.flops / work.bytes : 0;
  const TensorView& k = first.args().k;
  result.pages = PageKind(k.data, static_cast<std::size_t>(k.Elements()) * SizeOf(k.dtype));
  return result;
}

void Conclude(const Work& work, const Roof& roof, const std::vector<double>& seconds, const std::vector<double>& roofs,
              BenchResult* result) {
  result->rounds = static_cast<int>(seconds.size());
  const double median = Quantile(seconds, 0.5);
  result->median_ms = median * 1e3;
  result->p10_ms = Quantile(seconds, 0.1) * 1e3;
  result->p90_ms = Quantile(seconds, 0.9) * 1e3;
  if (median > 0) {
    result->gflops = work.flops / median / 1e9;
    result->gbps = work.bytes / median / 1e9;
  }
  result->roof_value = Quantile(roofs, 0.5);
  if (result->roof_value > 0) {
    result->roof_percent = 100 * (roof.reads() ? result->gbps : result->gflops) / result->roof_value;
  }
}

}  // namespace

double Quantile(std::vector<double> samples, double q) {
  if (samples.empty()) return 0;
  std::sort(samples.begin(), samples.end());
  const double at = q * static_cast<double>(samples.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, samples.size() - 1);
  return samples[below] + (at - std::floor(at)) * (samples[above] - samples[below]);
}

TurnResult MeasureTurns(const std::vector<PreparedCase*>& cases, bool bundle, const BenchSettings& settings) {
  const PreparedCase& first = *cases.front();
  TurnResult turns{Described(first, settings), {}};
  BenchResult& result = turns.result;
  std::vector<double> launch_seconds;
  for (const PreparedCase* prepared : cases) launch_seconds.push_back(WarmUp(*prepared, settings.min_seconds));
  if (Interrupted()) return turns;
  Roof roof(first, first.plan().executor());
  result.roof = roof.name();
  result.roof_how = roof.how();

  std::vector<int> bundles = Bundles(launch_seconds);
  if (!bundle) std::fill(bundles.begin(), bundles.end(), 1);
  const double probe_seconds = std::clamp(launch_seconds.front() * bundles.front(), 0.002, 0.1);
  // A long launch is its own warm-up, and one round is enough; a short case beside it takes several turns in it.
  const bool warm_up_counts = settings.repeat == 0 && launch_seconds.front() > kLongLaunch;
  const int least = warm_up_counts ? 1 : kLeastRounds, short_turns = warm_up_counts ? kShortTurns : 1;
  const int rounds = settings.repeat > 0 ? settings.repeat : kMostRounds;
  std::vector<double> own, roofs;
  double spent = 0;
  for (int round = 0; round < rounds && !Interrupted(); ++round) {
    if (settings.repeat == 0 && round >= least && spent >= settings.min_seconds) break;
    roofs.push_back(roof.Run(probe_seconds));
    std::vector<double> seconds(cases.size());
    for (std::size_t turn = 0; turn < cases.size(); ++turn) {
      const std::size_t c = round % 2 == 0 ? turn : cases.size() - 1 - turn;  // nobody is always the first
      const bool known = warm_up_counts && round == 0 && launch_seconds[c] > kLongLaunch;
      seconds[c] = known ? launch_seconds[c] : Turns(*cases[c], bundles[c], short_turns);
    }
    own.push_back(seconds.front());
    spent += seconds.front() * bundles.front();
    turns.seconds.push_back(std::move(seconds));
  }
  Conclude(first.work(), roof, own, roofs, &result);
  if (settings.counters && !Interrupted()) Count(first, bundles.front(), &result);
  if (settings.profile && !Interrupted()) result.profile = ProfileOf(first, result.median_ms);
  CheckOutputs(cases, &result);
  return turns;
}

BenchResult MeasureCase(const std::string& text, const BenchSettings& settings) {
  const std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kOpenMp, settings.threads));
  PreparedCase prepared(text, settings.kernel, *executor);
  return MeasureTurns({&prepared}, true, settings).result;
}

}  // namespace regard::cli
