// One measured case: launches of one plan, taken turn about with the roof probes, and the check of the last output.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "regard/plan.h"
#include "regard/problem.h"
#include "src/cases/cases.h"

namespace regard::cli {

struct BenchSettings {
  int threads = 1;
  double min_seconds = 1;  // of launches, warm-up and probes not counted
  int repeat = 0;          // rounds; 0: as many as min_seconds takes
  std::string kernel;      // pattern; empty: what Select chooses
};

struct BenchResult {
  std::string text;  // the case as given
  std::string kernel;
  int threads = 1;
  int rounds = 0;
  double median_ms = 0, p10_ms = 0, p90_ms = 0;
  double gflops = 0;      // 2 * (D + Dv [+ Dv with qv]) a visible pair
  double gbps = 0;        // each visible K and V byte once
  std::string roof;       // fma_f32, dot_bf16, read, read_pages
  double roof_value = 0;  // GFLOP/s or GB/s: the median over the same rounds
  double roof_percent = 0;
  std::string roof_how;  // which loop was best
  std::string pages;     // under K
  double intensity = 0;  // flops a byte
  bool checked = false;  // false only if Ctrl-C came first
  cases::Accuracy accuracy;
  bool reads() const { return roof == "read" || roof == "read_pages"; }
  bool ok() const { return !checked || accuracy.ok(); }
};

// Throws Error for a bad case. Stops early, with the rounds it has, once Interrupted(); rounds may then be 0.
BenchResult MeasureCase(const std::string& text, const BenchSettings& settings);

// Value below which the share `q` of the samples lies, between neighbours by proportion. 0 for no samples.
double Quantile(std::vector<double> samples, double q);

}  // namespace regard::cli
