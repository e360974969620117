// Rows of a suite: a figure made of one or several cases, and the goal that it should reach.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/bench_case.h"

namespace regard::cli {

enum class Figure {
  kRoof,         // per cent of the roof
  kTime,         // time of the case over that of `other`
  kTimePerPair,  // the same, each time divided by the case's visible pairs
  kSpeed,        // time of `other` over that of the case
  kParts,        // time of the case over that of its sequences one by one
  kOverhead,     // microseconds of a launch beyond the time of its kernel alone
  kWorkspace,    // the plan's workspace over kWorkspaceOfThread a thread plus packed K and V of the heads in flight
};

// Goals of a row by the number of threads; absent: only shown. kRoof and kSpeed are at least, the others at most.
struct Goals {
  std::optional<double> one, more;
  // Where memory serves two threads more than kScalesFrom times as fast as one, `one` holds for more threads too.
  bool one_where_memory_scales = false;
};

struct Row {
  std::string name;  // unique in its suite
  Figure figure = Figure::kRoof;
  std::string text;   // the case
  std::string other;  // the second case of a ratio
  Goals goals;
  std::string kernel;  // pattern; empty: what Select chooses
};

// How regard compares with the best other library that ran the row's case, where one did.
struct PeerRatio {
  std::string name, version;
  double times_faster = 0;  // its time over regard's
};

struct RowResult {
  Row row;
  BenchResult result;  // of the row's case
  double value = 0;    // the figure
  std::optional<double> goal;
  std::optional<double> read_ratio;  // two threads' read bandwidth over one's, where the goal depends on it
  std::optional<PeerRatio> best_peer;
  std::string note;
  bool reached() const;
};

// Two threads' read bandwidth over one's above which memory counts as scaling with threads.
inline constexpr double kScalesFrom = 1.6;
inline constexpr double kWorkspaceOfThread = 1.5e6;  // bytes

bool AtLeast(Figure figure);              // else at most
const char* NameOf(Figure figure);        // "percent_of_roof", "time_ratio", ...
std::string ValueText(Figure figure, double value);  // "87.3 %", "x 1.024", "1.3 us"
std::string GoalText(Figure figure, double goal);    // ">= 88 %", "<= x 1.03"
// What the row is held against, in words: empty for the roof.
std::string ComparedWith(const Row& row);

// The goal for a number of threads; `read_ratio`: two threads' read bandwidth over one's, absent: not known.
std::optional<double> GoalFor(const Goals& goals, int threads, std::optional<double> read_ratio);

// Packed K and V of the heads in flight, one a thread at most, at the width that the kernel multiplies, and
// kWorkspaceOfThread for each thread; bytes.
double AllowedWorkspace(const Problem& p, const std::string& kernel, int threads);

// Rows whose name or case contains `pattern`. Throws Error{"--rows"} where none does.
std::vector<Row> RowsMatching(const std::vector<Row>& rows, const std::string& pattern);

}  // namespace regard::cli
