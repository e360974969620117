// `regard list`: every kernel and what it supports, found by asking its `supports` about probing problems.
#include <algorithm>
#include <cstdio>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/text_table.h"
#include "regard/problem.h"
#include "src/backend/kernel_info.h"
#include "src/backend/probe_devices.h"

namespace regard::cli {
namespace {

struct Feature {
  const char* name;
  void (*add)(Problem&);
};

constexpr Feature kFeatures[] = {
    {"fp8kv", [](Problem& p) { p.kv_dtype = DType::kF8E4M3; }},
    {"paged", [](Problem& p) { p.page_size = 16; }},
    {"varlen", [](Problem& p) { p.varlen = true; }},
    {"causal", [](Problem& p) { p.options.causal = true; }},
    {"window", [](Problem& p) { p.options.window_left = 20, p.options.window_right = 4; }},
    {"chunk", [](Problem& p) { p.options.chunk = 32; }},
    {"softcap", [](Problem& p) { p.options.softcap = 30; }},
    {"alibi", [](Problem& p) { p.alibi = true; }},
    {"bias", [](Problem& p) { p.bias = true; }},
    {"mask", [](Problem& p) { p.mask = true, p.mask_density = 0.1; }},
    {"sink", [](Problem& p) { p.sink = true; }},
    {"qv", [](Problem& p) { p.qv = true; }},
    {"leftpad", [](Problem& p) { p.leftpad = true; }},
    {"dropout", [](Problem& p) { p.options.dropout = 0.1; }},
    {"append", [](Problem& p) { p.append = 1; }},
    {"rotary", [](Problem& p) { p.append = 1, p.options.rotary = Rotary::kHalf; }},
    {"lse", [](Problem& p) { p.lse = true; }},
    {"scoremod", [](Problem& p) { p.score_mod = true; }},
    {"maskmod", [](Problem& p) { p.mask_mod = true; }},
    {"backward", [](Problem& p) { p.phase = Phase::kBackward; }},
};

// Of the plain problems that a kernel takes, how many it takes with the feature as well.
enum class Support { kNone, kSome, kAll };

struct Row {
  const KernelInfo* kernel = nullptr;
  bool here = false;  // runs on this machine
  std::vector<std::string> phases, dtypes;
  std::int64_t max_head_dim = 0;
  std::vector<Support> features;  // as kFeatures
};

bool IsLegal(const Problem& p) {
  try {
    Validate(p);
    return true;
  } catch (const Error&) {
    return false;
  }
}

using Devices = std::vector<DeviceCaps>;

bool Accepts(const KernelInfo& kernel, const Problem& p, const Devices& devices) {
  return IsLegal(p) && std::any_of(devices.begin(), devices.end(),
                                   [&](const DeviceCaps& caps) { return kernel.supports(kernel, p, caps).accepted; });
}

Problem Plain(Phase phase, DType dtype, std::int64_t head_dim) {
  Problem p;
  p.phase = phase;
  p.batch = 2;
  p.seq_q = phase == Phase::kDecode ? 1 : 64;
  p.seq_kv = 64;
  p.heads_q = 4;
  p.heads_kv = 2;
  p.head_dim = p.head_dim_v = head_dim;
  p.dtype = p.kv_dtype = dtype;
  p.varlen = phase == Phase::kMixed;
  return p;
}

const char* PhaseName(Phase phase) {
  switch (phase) {
    case Phase::kPrefill:
      return "prefill";
    case Phase::kDecode:
      return "decode";
    case Phase::kMixed:
      return "mixed";
    case Phase::kBackward:
      return "backward";
  }
  return "?";
}

Support AddedTo(const std::vector<Problem>& plain, const KernelInfo& kernel, const Feature& feature,
                const Devices& devices) {
  std::size_t taken = 0, legal = 0;
  for (Problem p : plain) {
    feature.add(p);
    taken += Accepts(kernel, p, devices);
    legal += IsLegal(p);
  }
  return taken == 0 ? Support::kNone : taken == legal ? Support::kAll : Support::kSome;
}

// What `kernel` supports on devices that lack nothing, and whether one here is among them.
Row Probe(const KernelInfo& kernel, const Devices& everything, const Devices& here) {
  Row row;
  row.kernel = &kernel;
  constexpr std::int64_t kHeadDim = 64;
  std::vector<Problem> plain, plain_fp8, plain_backward;
  auto note = [](std::vector<std::string>* names, std::string name) {
    if (std::find(names->begin(), names->end(), name) == names->end()) names->push_back(std::move(name));
  };
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2}) {
    for (const Phase phase : {Phase::kPrefill, Phase::kDecode, Phase::kMixed, Phase::kBackward}) {
      const Problem p = Plain(phase, dtype, kHeadDim);
      if (!Accepts(kernel, p, everything)) continue;
      (phase == Phase::kBackward ? plain_backward : IsFp8(dtype) ? plain_fp8 : plain).push_back(p);
      row.here = row.here || Accepts(kernel, p, here);
      note(&row.phases, PhaseName(phase));
      note(&row.dtypes, std::string(Name(dtype)));
      for (std::int64_t d = 512; d > row.max_head_dim; --d) {
        if (Accepts(kernel, Plain(phase, dtype, d), everything)) row.max_head_dim = d;
      }
    }
  }
  // fp8 q and the backward phase narrow what is legal, so that they speak only where they are alone.
  if (plain.empty()) plain = std::move(plain_fp8);
  if (plain.empty()) plain = std::move(plain_backward);
  for (const Feature& feature : kFeatures) row.features.push_back(AddedTo(plain, kernel, feature, everything));
  return row;
}

std::string Joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// Titles of the feature columns from top to bottom, above columns of one character.
std::string FeatureTitles(std::size_t indent) {
  std::size_t height = 0;
  for (const Feature& feature : kFeatures) height = std::max(height, std::string_view(feature.name).size());
  std::string text;
  for (std::size_t line = 0; line < height; ++line) {
    std::string row(indent, ' ');
    for (const Feature& feature : kFeatures) {
      const std::string_view name = feature.name;
      const std::size_t skipped = height - name.size();
      row += line < skipped ? ' ' : name[line - skipped];
      row += "  ";
    }
    row.resize(row.find_last_not_of(' ') + 1);
    text += row + "\n";
  }
  return text;
}

std::string MatrixText(const std::vector<Row>& rows) {
  std::vector<TextTable::Column> columns = {{"kernel"}, {"here"}, {"d <=", Align::kRight}};
  for (std::size_t i = 0; i < std::size(kFeatures); ++i) columns.push_back({""});
  columns.push_back({"numerics"});
  TextTable matrix(columns);
  std::size_t name_width = 0;
  std::vector<std::pair<std::string, std::vector<const Row*>>> kinds;  // rows by phases, dtypes and summary
  for (const Row& row : rows) {
    name_width = std::max(name_width, std::string_view(row.kernel->name).size());
    std::vector<std::string> cells = {row.kernel->name, row.here ? "yes" : "no", fmt::format("{}", row.max_head_dim)};
    for (const Support s : row.features) cells.push_back(s == Support::kAll ? "+" : s == Support::kSome ? "~" : "-");
    cells.push_back(row.kernel->numerics);
    matrix.Row(cells);
    const std::string kind = fmt::format("{}; q {}; {}", Joined(row.phases), Joined(row.dtypes), row.kernel->summary);
    const auto known = std::find_if(kinds.begin(), kinds.end(), [&](const auto& k) { return k.first == kind; });
    known != kinds.end() ? known->second.push_back(&row) : kinds.push_back({kind, {&row}});
  }
  TextTable summaries({{"kernels"}, {"phases; q dtypes; how"}});
  for (const auto& [kind, members] : kinds) {
    const std::string more = members.size() > 1 ? fmt::format(" and {} more", members.size() - 1) : "";
    summaries.Row({members.front()->kernel->name + more, kind});
  }
  const std::size_t indent = name_width + std::size("  here  d <=  ") - 1;
  return FeatureTitles(indent) + matrix.Text() +
         "\n+ supported   ~ with some of its dtypes or phases only   - not supported\n"
         "here: runs on this machine as it is set up now. Equal numerics give equal bits.\n\n" +
         summaries.Text();
}

nlohmann::ordered_json MatrixJson(const std::vector<Row>& rows) {
  auto array = nlohmann::ordered_json::array();
  for (const Row& row : rows) {
    nlohmann::ordered_json features;
    for (std::size_t i = 0; i < std::size(kFeatures); ++i) {
      const Support s = row.features[i];
      features[kFeatures[i].name] = s == Support::kAll ? "all" : s == Support::kSome ? "some" : "none";
    }
    array.push_back({{"kernel", row.kernel->name},
                     {"numerics", row.kernel->numerics},
                     {"summary", row.kernel->summary},
                     {"here", row.here},
                     {"phases", row.phases},
                     {"dtypes", row.dtypes},
                     {"max_head_dim", row.max_head_dim},
                     {"features", features}});
  }
  return array;
}

void List(bool json) {
  std::vector<Row> rows;
  const Devices everything = ProbeDevices(), here = DevicesHere();
  for (const KernelInfo* kernel : AllKernels()) rows.push_back(Probe(*kernel, everything, here));
  fmt::print("{}", json ? MatrixJson(rows).dump(2) + "\n" : MatrixText(rows));
}

}  // namespace

void RegisterList(CLI::App& app, int&) {
  auto* command = app.add_subcommand("list", "The kernel table: every kernel and what it supports");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "As JSON");
  command->callback([json] { List(*json); });
}

}  // namespace regard::cli
