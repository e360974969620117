// Measured cases: launches taken turn about with the roof probes and with each other, and the check of the last output.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/bench_profile.h"
#include "cli/perf_counters.h"
#include "cli/prepared_case.h"
#include "regard/plan.h"
#include "regard/problem.h"
#include "src/cases/cases.h"

namespace regard::cli {

struct BenchSettings {
  int threads = 1;
  double min_seconds = 1;  // of launches, warm-up and probes not counted
  int repeat = 0;          // rounds; 0: as many as min_seconds takes
  std::string kernel;      // pattern; empty: what Select chooses
  bool counters = false;   // count cycles, instructions and cache misses in launches after the timed ones
  bool profile = false;    // tell the phases of the kernel apart, in launches after the timed ones
};

struct BenchResult {
  std::string text;  // the case as given
  std::string kernel;
  int threads = 1;
  int rounds = 0;
  double median_ms = 0, p10_ms = 0, p90_ms = 0;
  double gflops = 0;      // 2 * (D + Dv [+ Dv with qv]) a visible pair; backward 2 * (3 * D + 2 * Dv)
  double gbps = 0;        // each visible K and V byte once
  std::string roof;       // fma_f32, dot_bf16, read, read_pages; GPU: tensor_f16, cuda_f32, gpu_memory
  double roof_value = 0;  // GFLOP/s or GB/s: the median over the same rounds
  double roof_percent = 0;
  std::string roof_how;  // which loop was best
  std::string pages;     // under K
  double intensity = 0;  // flops a byte
  double pairs = 0;      // visible (query, key) pairs of all heads
  std::size_t workspace_bytes = 0;
  std::optional<Counts> counts;  // a visible pair; absent: not asked for, or see no_counters
  std::string no_counters;       // why the CPU's counters could not be read
  std::optional<Profile> profile;  // absent: not asked for
  bool checked = false;          // false only if Ctrl-C came first
  cases::Accuracy accuracy;
  bool reads() const { return roof == "read" || roof == "read_pages" || roof == "gpu_memory"; }
  bool ok() const { return !checked || accuracy.ok(); }
};

// One case and others that take turns with it.
struct TurnResult {
  BenchResult result;                        // of the first
  std::vector<std::vector<double>> seconds;  // of one launch: by round, then by case
};

// Throws Error for a bad case. Stops early, with the rounds it has, once Interrupted(); rounds may then be 0.
BenchResult MeasureCase(const std::string& text, const BenchSettings& settings);

// Every round: the first case's roof once, then each case in its order, launches shorter than a turn in bundles
// (`bundle` false: one launch each). The outputs of all are checked; a miss of any shows in the result.
TurnResult MeasureTurns(const std::vector<PreparedCase*>& cases, bool bundle, const BenchSettings& settings);

// Value below which the share `q` of the samples lies, between neighbours by proportion. 0 for no samples.
double Quantile(std::vector<double> samples, double q);

}  // namespace regard::cli
