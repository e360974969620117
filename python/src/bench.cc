// bench: a case's launches turn about with the roof of this machine, and the check of its output.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <nanobind/stl/string.h>

#include "cli/bench_roof.h"
#include "cli/prepared_case.h"
#include "python/src/threads.h"
#include "python/src/tools.h"

namespace nb = nanobind;

namespace regard::python {
namespace {

constexpr double kShortestTurn = 5e-4;  // shorter launches are timed in bundles
constexpr int kLeastRounds = 3, kMostRounds = 2000, kMostLaunches = 1000;

double Quantile(std::vector<double> samples, double q) {
  if (samples.empty()) return 0;
  std::sort(samples.begin(), samples.end());
  return samples[static_cast<std::size_t>(std::lround(q * static_cast<double>(samples.size() - 1)))];
}

struct Measured {
  std::vector<double> seconds, roofs;
  std::string roof, roof_how;
  cases::Accuracy accuracy;
};

Measured Measure(const cli::PreparedCase& prepared, double min_seconds) {
  double launch = 1e30;
  for (int i = 0; i < 3; ++i) launch = std::min(launch, prepared.Seconds(1));
  const int bundle = std::clamp(static_cast<int>(std::ceil(kShortestTurn / launch)), 1, kMostLaunches);
  cli::Roof roof(prepared, prepared.plan().executor());
  Measured m;
  m.roof = roof.name();
  m.roof_how = roof.how();
  double spent = 0;
  for (int round = 0; round < kMostRounds && (round < kLeastRounds || spent < min_seconds); ++round) {
    m.roofs.push_back(roof.Run(std::clamp(launch * bundle, 0.002, 0.1)));
    m.seconds.push_back(prepared.Seconds(bundle));
    spent += m.seconds.back() * bundle;
  }
  m.accuracy = prepared.Check();
  return m;
}

nb::dict Bench(const std::string& text, const std::string& kernel, double min_seconds, int threads) {
  std::unique_ptr<Executor> own;
  if (threads > 0) own.reset(MakeExecutor(ExecutorKind::kOpenMp, threads));
  Executor& executor = own ? *own : CallerExecutor();
  std::unique_ptr<cli::PreparedCase> prepared;
  Measured m;
  {
    const nb::gil_scoped_release release;
    prepared = std::make_unique<cli::PreparedCase>(text, kernel, executor);
    m = Measure(*prepared, min_seconds);
  }
  const double median = Quantile(m.seconds, 0.5), roof = Quantile(m.roofs, 0.5);
  const double gflops = prepared->work().flops / median / 1e9, gbps = prepared->work().bytes / median / 1e9;
  const bool reads = m.roof.starts_with("read");
  nb::dict result;
  result["case"] = prepared->text();
  result["kernel"] = prepared->plan().selection().kernel;
  result["threads"] = executor.threads();
  result["rounds"] = static_cast<int>(m.seconds.size());
  result["median_ms"] = median * 1e3;
  result["p10_ms"] = Quantile(m.seconds, 0.1) * 1e3;
  result["p90_ms"] = Quantile(m.seconds, 0.9) * 1e3;
  result["gflops"] = gflops;
  result["gbps"] = gbps;
  result["roof"] = m.roof;
  result["roof_value"] = roof;
  result["roof_percent"] = roof > 0 ? 100 * (reads ? gbps : gflops) / roof : 0.0;
  result["roof_how"] = m.roof_how;
  result["max_error"] = m.accuracy.out_error;
  result["ok"] = m.accuracy.ok();
  return result;
}

}  // namespace

void AddBench(nb::module_& m) {
  m.def("bench", &Bench, nb::arg("case"), nb::arg("kernel"), nb::arg("min_seconds"), nb::arg("threads"));
}

}  // namespace regard::python
