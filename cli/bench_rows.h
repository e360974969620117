// Measures the rows of a suite: each figure from launches that take turns in the same rounds.
#pragma once

#include <optional>
#include <vector>

#include "cli/rows.h"

namespace regard::cli {

// One row. `before`: rows measured earlier in this run; a row that only asks for the workspace of a case that ran and
// was checked there does not run it again. The result has no rounds where Ctrl-C came first.
RowResult MeasureRow(const Row& row, const BenchSettings& settings, std::optional<double> read_ratio,
                     const std::vector<RowResult>& before);

// Two threads' read bandwidth over one's, on main memory, in turns. Absent on a machine with one core.
std::optional<double> MeasureReadRatio();

}  // namespace regard::cli
