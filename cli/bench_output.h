// What `regard bench` prints and writes: the table of cases, the table of rows with goals, the lines below, the JSON.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "cli/rows.h"

namespace regard::cli {

// Everything that one run measured. Outside a suite of rows a case is a row without name and goal.
struct BenchRun {
  std::vector<RowResult> rows;
  bool with_goals = false;  // a suite of rows
  int threads = 1;
  bool counters = false;
  std::optional<double> read_ratio;  // two threads' read bandwidth over one's at the start; absent: not measured
};

std::string RunText(const BenchRun& run);
nlohmann::ordered_json RunJson(const BenchRun& run);

}  // namespace regard::cli
