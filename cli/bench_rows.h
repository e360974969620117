// Measures the rows of a suite: each figure from launches that take turns in the same rounds.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "cli/rows.h"
#include "src/cases/buffer.h"
#include "src/cpu/probe/roof.h"

namespace regard::cli {

// Two threads' read bandwidth over one's, on main memory. It changes with what other guests of the machine do, so that
// rows whose goal depends on it measure it anew.
class ReadRatio {
 public:
  static bool HasTwoCores();  // else there is nothing to measure
  ReadRatio();
  // Rounds of one thread and two in turns; the ratio of each.
  std::vector<double> Measure();

 private:
  cases::Buffer memory_;
  std::unique_ptr<Executor> one_, two_;
  std::optional<probe::ReadRoof> alone_, both_;
};

// One row. `ratio`: null on a machine with one core. `before`: rows measured earlier in this run; a row that only asks for the workspace of a case that ran and
// was checked there does not run it again. The result has no rounds where Ctrl-C came first.
RowResult MeasureRow(const Row& row, const BenchSettings& settings, ReadRatio* ratio,
                     const std::vector<RowResult>& before);

}  // namespace regard::cli
