// `regard list`: every kernel and what it supports, found by asking its `supports` about probing problems.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/device_options.h"
#include "cli/text_table.h"
#include "regard/problem.h"
#include "src/backend/kernel_info.h"

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

bool Accepts(const KernelInfo& kernel, const Problem& p, const DeviceCaps& caps) {
  try {
    Validate(p);
    return kernel.supports(kernel, p, caps).accepted;
  } catch (const Error&) {
    return false;  // no legal problem, so nothing to support
  }
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
                const DeviceCaps& caps) {
  std::size_t taken = 0;
  for (Problem p : plain) {
    feature.add(p);
    taken += Accepts(kernel, p, caps);
  }
  return taken == 0 ? Support::kNone : taken == plain.size() ? Support::kAll : Support::kSome;
}

// What `kernel` supports on a device that lacks nothing.
Row Probe(const KernelInfo& kernel) {
  DeviceCaps everything;
  everything.isas.assign(std::begin(kAllIsas), std::end(kAllIsas));
  Row row;
  row.kernel = &kernel;
  constexpr std::int64_t kHeadDim = 64;
  std::vector<Problem> plain;
  auto note = [](std::vector<std::string>* names, std::string name) {
    if (std::find(names->begin(), names->end(), name) == names->end()) names->push_back(std::move(name));
  };
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2}) {
    for (const Phase phase : {Phase::kPrefill, Phase::kDecode, Phase::kMixed}) {
      const Problem p = Plain(phase, dtype, kHeadDim);
      if (!Accepts(kernel, p, everything)) continue;
      if (!IsFp8(dtype)) plain.push_back(p);
      row.here = row.here || Accepts(kernel, p, DeviceCaps::Host());
      note(&row.phases, PhaseName(phase));
      note(&row.dtypes, std::string(Name(dtype)));
      for (std::int64_t d = 512; d > row.max_head_dim; --d) {
        if (Accepts(kernel, Plain(phase, dtype, d), everything)) row.max_head_dim = d;
      }
    }
  }
  for (const Feature& feature : kFeatures) row.features.push_back(AddedTo(plain, kernel, feature, everything));
  return row;
}

std::string Joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::string MatrixText(const std::vector<Row>& rows) {
  std::vector<TextTable::Column> columns = {{"kernel"}, {"here"}, {"phases"}, {"q dtypes"}, {"d <=", Align::kRight}};
  for (const Feature& feature : kFeatures) columns.push_back({feature.name});
  TextTable matrix(columns);
  TextTable summaries({{"kernel"}, {"numerics"}, {"summary"}});
  for (const Row& row : rows) {
    std::vector<std::string> cells = {row.kernel->name, row.here ? "yes" : "no", Joined(row.phases), Joined(row.dtypes),
                                      fmt::format("{}", row.max_head_dim)};
    for (const Support s : row.features) cells.push_back(s == Support::kAll ? "+" : s == Support::kSome ? "~" : "-");
    matrix.Row(cells);
    summaries.Row({row.kernel->name, row.kernel->numerics, row.kernel->summary});
  }
  return matrix.Text() + "\n+ supported   ~ with some of its dtypes or phases only   - not supported\n"
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
  for (const KernelInfo* kernel : AllKernels()) rows.push_back(Probe(*kernel));
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
