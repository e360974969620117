// The bench report: one HTML page that needs nothing else, with tables and plots.
#pragma once

#include <string>
#include <vector>

#include "cli/bench_case.h"
#include "cli/svg_plot.h"

namespace regard::cli {

// A case at several sizes, or on several numbers of threads.
struct Sweep {
  std::string name;        // "bf16 causal"
  std::vector<double> xs;  // length or threads, beside each result
  std::vector<BenchResult> results;
};

struct ReportData {
  std::string cpu, best_isa;
  std::vector<BenchResult> results;
  std::vector<Sweep> prefill_lengths, decode_lengths, threads;
  double read_gbps = 0, fma_gflops = 0, dot_gflops = 0;  // all threads; 0: unknown
  bool complete = true;                                  // false after Ctrl-C
};

std::string ReportHtml(const ReportData& data);

}  // namespace regard::cli
