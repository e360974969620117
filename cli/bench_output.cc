#include "cli/bench_output.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/machine.h"
#include "cli/text_table.h"
#include "regard/device.h"
#include "regard/version.h"
#include "src/cpu/probe/roof.h"
#include "src/cuda/driver/driver_api.h"
#include "src/cuda/driver/nvrtc.h"

namespace regard::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string RoofValue(const BenchResult& r) {
  return fmt::format("{:.1f} {}", r.roof_value, r.reads() ? "GB/s" : "GFLOP/s");
}

std::string Checked(const BenchResult& r) {
  return !r.checked ? "-" : r.ok() ? "good" : "MISS";
}

std::string CaseTable(const std::vector<RowResult>& rows) {
  TextTable table({{"kernel"},
                   {"threads", Align::kRight},
                   {"median ms", Align::kRight},
                   {"p10", Align::kRight},
                   {"p90", Align::kRight},
                   {"GFLOP/s", Align::kRight},
                   {"GB/s", Align::kRight},
                   {"roof"},
                   {"its value", Align::kRight},
                   {"of roof", Align::kRight},
                   {"max error", Align::kRight},
                   {"check"},
                   {"case"}});
  for (const RowResult& row : rows) {
    const BenchResult& r = row.result;
    table.Row({r.kernel, fmt::format("{}", r.threads), fmt::format("{:.3f}", r.median_ms),
               fmt::format("{:.3f}", r.p10_ms), fmt::format("{:.3f}", r.p90_ms), fmt::format("{:.1f}", r.gflops),
               fmt::format("{:.1f}", r.gbps), r.roof, RoofValue(r), fmt::format("{:.1f} %", r.roof_percent),
               r.checked ? fmt::format("{:.1e}", r.accuracy.out_error) : "-", Checked(r), r.text});
  }
  return table.Text();
}

std::string GoalTable(const std::vector<RowResult>& rows) {
  const bool peers = std::any_of(rows.begin(), rows.end(), [](const RowResult& r) { return r.best_peer.has_value(); });
  std::vector<TextTable::Column> columns = {{"row"},
                                            {"figure", Align::kRight},
                                            {"goal", Align::kRight},
                                            {""},
                                            {"median ms", Align::kRight},
                                            {"of roof", Align::kRight},
                                            {"roof"},
                                            {"its value", Align::kRight},
                                            {"check"}};
  if (peers) columns.push_back({"best peer"});
  columns.push_back({"note"});
  TextTable table(columns);
  for (const RowResult& row : rows) {
    const BenchResult& r = row.result;
    std::vector<std::string> cells = {row.row.name,
                                      ValueText(row.row.figure, row.value),
                                      row.goal ? GoalText(row.row.figure, *row.goal) : "",
                                      !row.goal       ? ""
                                      : row.reached() ? "reached"
                                                      : "MISSED",
                                      fmt::format("{:.3f}", r.median_ms),
                                      fmt::format("{:.1f} %", r.roof_percent),
                                      r.roof,
                                      RoofValue(r),
                                      Checked(r)};
    if (peers) {
      cells.push_back(row.best_peer ? fmt::format("{} {}, regard x {:.2f}", row.best_peer->name, row.best_peer->version,
                                                  row.best_peer->times_faster)
                                    : "");
    }
    cells.push_back(row.note);
    table.Row(cells);
  }
  const auto goals = std::count_if(rows.begin(), rows.end(), [](const RowResult& r) { return r.goal.has_value(); });
  const auto missed = std::count_if(rows.begin(), rows.end(), [](const RowResult& r) { return !r.reached(); });
  return table.Text() +
         fmt::format("\n{} rows: {} of {} goals reached, {} missed\n", rows.size(), goals - missed, goals, missed);
}

std::string CountersText(const std::vector<RowResult>& rows) {
  for (const RowResult& row : rows) {
    if (!row.result.no_counters.empty()) return "\ncounters: none; " + row.result.no_counters + "\n";
  }
  TextTable table({{"a visible pair: cycles", Align::kRight},
                   {"instructions", Align::kRight},
                   {"L1 misses", Align::kRight},
                   {"L2 misses", Align::kRight},
                   {"case"}});
  const auto cell = [](const std::optional<double>& count) { return count ? fmt::format("{:.4g}", *count) : "-"; };
  for (const RowResult& row : rows) {
    if (!row.result.counts) continue;
    const Counts& c = *row.result.counts;
    table.Row({cell(c.cycles), cell(c.instructions), cell(c.l1_misses), cell(c.l2_misses), row.result.text});
  }
  return "\n" + table.Text();
}

std::string ReadRatioText(double ratio) {
  return fmt::format(
      "2 threads read x {:.2f} what one reads, at the start of the run; decode on several threads is held to the goals "
      "of one thread where that is more than x {}, as each of its rows says\n",
      ratio, kScalesFrom);
}

// Roofs in plain words: which loop was best and on which pages.
std::string FootText(const std::vector<RowResult>& rows) {
  std::string text =
      "\nGFLOP/s counts visible pairs only; GB/s counts each visible K and V byte once; the roof is the median "
      "over the same rounds.\n";
  std::vector<std::string> said;
  for (const RowResult& row : rows) {
    const BenchResult& r = row.result;
    const std::string line = r.reads() ? fmt::format("{}: {}; K on {}", r.roof, r.roof_how, r.pages)
                                       : fmt::format("{}: {}", r.roof, r.roof_how);
    if (std::find(said.begin(), said.end(), line) == said.end()) said.push_back(line);
  }
  for (const std::string& line : said) text += line + "\n";
  return text;
}

template <class T>
Json OrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

// {"launches": 12, "phases": {"pack": {"percent": 4.1, "ms": 0.2}, ...}}
Json ProfileJson(const std::optional<Profile>& profile) {
  if (!profile || profile->phases.empty()) return {};
  Json phases;
  for (const Profile::Phase& phase : profile->phases) {
    phases[phase.name] = {{"percent", phase.percent}, {"ms", phase.ms}};
  }
  return {{"launches", profile->launches}, {"phases", phases}};
}

Json ResultJson(const RowResult& row) {
  const BenchResult& r = row.result;
  const bool named = !row.row.name.empty();
  Json json = {{"case", r.text},
               {"kernel", r.kernel},
               {"threads", r.threads},
               {"median_ms", r.median_ms},
               {"p10_ms", r.p10_ms},
               {"p90_ms", r.p90_ms},
               {"gflops", r.gflops},
               {"gbps", r.gbps},
               {"intensity", r.intensity},
               {"roof", r.roof},
               {"roof_value", r.roof_value},
               {"roof_percent", r.roof_percent},
               {"max_error", r.checked ? Json(r.accuracy.out_error) : Json()},
               {"workspace_bytes", r.workspace_bytes}};
  json["row"] = named ? Json(row.row.name) : Json();
  json["figure"] = named ? Json(NameOf(row.row.figure)) : Json();
  json["value"] = named ? Json(row.value) : Json();
  json["goal"] = OrNull(row.goal);
  json["goal_met"] = row.goal ? Json(row.reached()) : Json();
  json["read_ratio_2_over_1"] = OrNull(row.read_ratio);
  const std::string other = ComparedWith(row.row);
  json["ratio_to"] = other.empty() ? Json() : Json(other);
  json["counters"] = Json();
  if (r.counts) {
    json["counters"] = {{"cycles", OrNull(r.counts->cycles)},
                        {"instructions", OrNull(r.counts->instructions)},
                        {"l1_misses", OrNull(r.counts->l1_misses)},
                        {"l2_misses", OrNull(r.counts->l2_misses)}};
  }
  json["profile"] = ProfileJson(r.profile);
  json["best_peer"] = Json();
  if (row.best_peer) {
    json["best_peer"] = {{"name", row.best_peer->name},
                         {"version", row.best_peer->version},
                         {"times_faster", row.best_peer->times_faster}};
  }
  return json;
}

}  // namespace

std::string RunText(const BenchRun& run) {
  std::string text = run.with_goals ? GoalTable(run.rows) : CaseTable(run.rows);
  for (const RowResult& row : run.rows) {
    const BenchResult& r = row.result;
    if (!r.ok()) {
      text += fmt::format("MISS: {:.2f} x the bound, {}\nREPRO: regard check \"{}\"\n", r.accuracy.ratio(),
                          r.accuracy.where, r.text);
    }
  }
  if (run.counters) text += CountersText(run.rows);
  for (const RowResult& row : run.rows) {
    if (row.result.profile) text += ProfileText(row.result.text, row.result.kernel, *row.result.profile);
  }
  text += FootText(run.rows);
  if (run.read_ratio) text += ReadRatioText(*run.read_ratio);
  return text;
}

Json RunJson(const BenchRun& run) {
  const DeviceCaps& caps = DeviceCaps::Host();
  Json json = {{"version", regard_version()}, {"commit", Commit()}, {"compiler", Compiler()}};
  json["machine"] = {{"cpu", caps.name},
                     {"best_isa", Name(caps.Best())},
                     {"clock_ghz", probe::ClockHz() / 1e9},
                     {"threads", caps.threads},
                     {"l1_bytes", caps.l1_bytes},
                     {"l2_bytes", caps.l2_bytes},
                     {"l3_bytes", caps.l3_bytes},
                     {"read_ratio_2_over_1", OrNull(run.read_ratio)}};
  const auto on_gpu = [](const RowResult& row) { return row.result.kernel.starts_with("cuda."); };
  if (std::any_of(run.rows.begin(), run.rows.end(), on_gpu)) {
    const DeviceCaps& gpu = DeviceCaps::Gpu(0);
    json["machine"]["gpu"] = {{"name", gpu.name},
                              {"sm", gpu.gpu->sm},
                              {"driver_cuda", cuda::VersionText(cuda::Driver().version)},
                              {"nvrtc", cuda::Nvrtc().VersionText()}};
  }
  json["results"] = Json::array();
  for (const RowResult& row : run.rows) json["results"].push_back(ResultJson(row));
  return json;
}

}  // namespace regard::cli
