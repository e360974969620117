#include "src/cpu/tune.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "regard/status.h"
#include "src/core/suggest.h"
#include "src/cpu/params.h"

namespace regard::cpu {
namespace {

constexpr std::string_view kVariable = "REGARD_TUNE";

// Elements of K and V below which a decode step stays on the calling thread: waking a second one costs a few
// microseconds, and 256 Ki elements of bf16 take about 25 us at the 20 GB/s that one Zen 4 thread reads.
constexpr std::int64_t kWorthSharing = 256 * 1024;

// Every register tile height (12, 8, 6, 4 rows) divides it, so that no task but the last has a tile that is not full.
constexpr std::int64_t kRowUnit = 24;
static_assert(kTaskRows % kRowUnit == 0 && kMinTaskRows % kRowUnit == 0);

struct Tunable {
  std::string_view name;
  std::int64_t preset, low, high, unit;  // low <= value <= high, a multiple of unit
};
constexpr Tunable kTunables[Tuning::kCount] = {
    {"task_rows", kTaskRows, kRowUnit, kTaskRows, kRowUnit},
    {"min_task_rows", kMinTaskRows, kRowUnit, kTaskRows, kRowUnit},
    {"share", kWorthSharing, 0, std::int64_t{1} << 48, 1},
    {"block", kBlockTokens, 64, kBlockTokens, 64},
    {"split", kSplitTokens, 64, 65536, 64},
    {"prefetch", kPrefetchPanels, 0, kMostPrefetchPanels, 1},
    {"keep", kKeepMiB, 0, 1 << 20, 1},
};

std::vector<std::string_view> Names() {
  std::vector<std::string_view> names;
  for (const Tunable& t : kTunables) names.push_back(t.name);
  return names;
}

std::string RangeOf(const Tunable& t) {
  return (t.unit > 1 ? "a multiple of " + std::to_string(t.unit) + ", " : "a whole number, ") + std::to_string(t.low) +
         " to " + std::to_string(t.high);
}

[[noreturn]] void Refuse(std::string_view value, const std::string& expected) {
  throw Error(std::string(kVariable), std::string(value), expected);
}

void Set(Tuning& tuning, std::string_view word) {
  const std::size_t equals = word.find('=');
  const std::string_view name = word.substr(0, equals);
  const auto* const t =
      std::find_if(std::begin(kTunables), std::end(kTunables), [&](const Tunable& x) { return x.name == name; });
  if (t == std::end(kTunables) || equals == word.npos) {
    std::string known;
    for (const Tunable& x : kTunables) known += (known.empty() ? "" : ", ") + std::string(x.name);
    const std::string near = Nearest(name, Names());
    Refuse(word, "name=value with one of " + known +
                     (t == std::end(kTunables) && !near.empty() ? " (nearest: " + near + ")" : ""));
  }
  const std::string_view digits = word.substr(equals + 1);
  std::int64_t value = 0;
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || stop != digits.data() + digits.size() || value < t->low || value > t->high ||
      value % t->unit != 0) {
    Refuse(word, RangeOf(*t));
  }
  Tuning::Setting& setting = tuning.settings[t - std::begin(kTunables)];
  if (setting.source == Tuning::Source::kVariable) Refuse(word, std::string(name) + " once");
  setting = {value, Tuning::Source::kVariable};
}

const char* NameOf(Tuning::Source source) {
  return source == Tuning::Source::kDefault ? "default" : "REGARD_TUNE";
}

}  // namespace

bool Tuning::HasDefaultNumerics() const {
  return (*this)[kBlock] == kBlockTokens && (*this)[kSplit] == kSplitTokens;
}

Tuning TuningFor(std::string_view variable) {
  Tuning tuning;
  for (int i = 0; i < Tuning::kCount; ++i) tuning.settings[i] = {kTunables[i].preset, Tuning::Source::kDefault};
  constexpr std::string_view kSeparators = " ,\t";
  for (std::size_t at = variable.find_first_not_of(kSeparators); at != variable.npos;
       at = variable.find_first_not_of(kSeparators, at)) {
    const std::size_t end = std::min(variable.find_first_of(kSeparators, at), variable.size());
    Set(tuning, variable.substr(at, end - at));
    at = end;
  }
  if (tuning[Tuning::kMinTaskRows] > tuning[Tuning::kTaskRows]) {
    Refuse("min_task_rows=" + std::to_string(tuning[Tuning::kMinTaskRows]),
           "at most task_rows, " + std::to_string(tuning[Tuning::kTaskRows]));
  }
  if (tuning[Tuning::kSplit] % tuning[Tuning::kBlock] != 0) {
    Refuse("split=" + std::to_string(tuning[Tuning::kSplit]),
           "a multiple of block, " + std::to_string(tuning[Tuning::kBlock]));
  }
  return tuning;
}

std::vector<PlanSetting> SettingsOf(const Tuning& tuning) {
  std::vector<PlanSetting> list;
  for (int i = 0; i < Tuning::kCount; ++i) {
    list.push_back({std::string(kTunables[i].name), tuning.settings[i].value, NameOf(tuning.settings[i].source)});
  }
  return list;
}

std::string NumericsWith(const Tuning& tuning, std::string_view numerics) {
  return std::string(numerics.substr(0, numerics.find(".block"))) + ".block" + std::to_string(tuning[Tuning::kBlock]) +
         ".split" + std::to_string(tuning[Tuning::kSplit]);
}

}  // namespace regard::cpu
