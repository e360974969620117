#include "cli/rows.h"

#include <algorithm>

#include <fmt/format.h>

#include "regard/status.h"

namespace regard::cli {

bool AtLeast(Figure figure) {
  return figure == Figure::kRoof || figure == Figure::kSpeed;
}

const char* NameOf(Figure figure) {
  switch (figure) {
    case Figure::kRoof:
      return "percent_of_roof";
    case Figure::kTime:
      return "time_ratio";
    case Figure::kTimePerPair:
      return "time_per_pair_ratio";
    case Figure::kSpeed:
      return "speed_ratio";
    case Figure::kParts:
      return "time_over_parts";
    case Figure::kOverhead:
      return "launch_overhead_us";
    case Figure::kWorkspace:
      return "workspace_over_allowed";
  }
  return "";
}

std::string ValueText(Figure figure, double value) {
  if (figure == Figure::kRoof) return fmt::format("{:.1f} %", value);
  if (figure == Figure::kOverhead) return fmt::format("{:.2f} us", value);
  return fmt::format("x {:.3f}", value);
}

std::string GoalText(Figure figure, double goal) {
  const std::string sign = AtLeast(figure) ? ">= " : "<= ";
  if (figure == Figure::kRoof) return sign + fmt::format("{:.4g} %", goal);
  if (figure == Figure::kOverhead) return sign + fmt::format("{:.4g} us", goal);
  return sign + fmt::format("x {:.4g}", goal);
}

std::string ComparedWith(const Row& row) {
  switch (row.figure) {
    case Figure::kRoof:
      return "";
    case Figure::kParts:
      return "its sequences one by one";
    case Figure::kOverhead:
      return "its kernel alone";
    case Figure::kWorkspace:
      return "1.5 MB a thread and packed K and V of the heads in flight";
    default:
      return row.other;
  }
}

std::optional<double> GoalFor(const Goals& goals, int threads, std::optional<double> read_ratio) {
  const bool scales = read_ratio && *read_ratio > kScalesFrom;
  return threads == 1 || (goals.one_where_memory_scales && scales) ? goals.one : goals.more;
}

double AllowedWorkspace(const Problem& p, const std::string& kernel, int threads) {
  const bool pairs = kernel.starts_with("cpu.avx512_bf16.");
  const double element_bytes = pairs ? 2 : 4;
  const std::int64_t all_heads = p.heads_kv * std::max<std::int64_t>(p.batch, 1);
  const auto heads = static_cast<double>(std::min<std::int64_t>(threads, all_heads));
  return kWorkspaceOfThread * threads +
         heads * static_cast<double>(p.seq_kv) * static_cast<double>(p.head_dim + p.head_dim_v) * element_bytes;
}

bool RowResult::reached() const {
  if (!goal) return true;
  return AtLeast(row.figure) ? value >= *goal : value <= *goal;
}

std::vector<Row> RowsMatching(const std::vector<Row>& rows, const std::string& pattern) {
  std::vector<Row> matching;
  for (const Row& row : rows) {
    if (row.name.find(pattern) != std::string::npos || row.text.find(pattern) != std::string::npos) {
      matching.push_back(row);
    }
  }
  if (matching.empty()) {
    throw Error("--rows", pattern, "a part of a row's name or case, such as \"decode\" or \"bf16 causal\"");
  }
  return matching;
}

}  // namespace regard::cli
