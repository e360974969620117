// Selection. The rule: of the kernels that the choice allows and that can do the problem, the first in order of
// preference wins: by the choice's patterns in their order, then by table order (best instruction set first). Cost never
// picks another numerics id: it only decides among able kernels of one rank and one id.
//
// Law (docs/semantics.md, "Determinism"): under invariance full and batch the numerics id depends on dtype, head dims,
// options and device only, never on phase, lengths, batch, page or layout. It follows from the rule because all phases
// of one id stand side by side in the tables, what one of them refuses for its phase another takes, and refusals for any
// other reason read only what the id may depend on. A choice of the user's that names single phases steps outside it.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "regard/plan.h"
#include "regard/status.h"
#include "src/backend/select.h"
#include "src/core/suggest.h"

namespace regard {
namespace {

using Rows = std::span<const KernelInfo* const>;

constexpr std::string_view kEnvironment = "REGARD_BACKENDS";
// Backends by name: words that are never a typing error, with or without a kernel in this build.
constexpr std::string_view kBackends[] = {"cpu", "cuda", "opencl", "reference"};

thread_local const KernelChoice* scoped_choice = nullptr;

bool MatchesAny(const std::vector<std::string>& patterns, std::string_view kernel) {
  return std::ranges::any_of(patterns, [&](const std::string& x) { return MatchesPattern(x, kernel); });
}

bool HasRow(Rows rows, std::string_view pattern) {
  return std::ranges::any_of(rows, [&](const KernelInfo* k) { return MatchesPattern(pattern, k->name); });
}
bool Known(Rows rows, std::string_view pattern) {
  return std::ranges::find(kBackends, pattern) != std::end(kBackends) || HasRow(rows, pattern);
}

std::string ExpectedPattern(Rows rows, const std::string& pattern) {
  std::set<std::string_view> known(std::begin(kBackends), std::end(kBackends));
  for (const KernelInfo* k : rows) {
    const std::string_view name = k->name;
    for (std::size_t dot = name.find('.'); dot != name.npos; dot = name.find('.', dot + 1)) {
      known.insert(name.substr(0, dot));
    }
    known.insert(name);
  }
  const std::string near = Nearest(pattern, std::vector<std::string_view>(known.begin(), known.end()));
  return "a kernel name or a dotted prefix of one" + (near.empty() ? "" : ", such as " + near) +
         " (`regard list` shows them)";
}

void RequireKnown(Rows rows, const KernelChoice& choice) {
  for (const auto* patterns : {&choice.priority, &choice.exclude}) {
    for (const std::string& pattern : *patterns) {
      if (!Known(rows, pattern)) throw Error("kernel", pattern, ExpectedPattern(rows, pattern));
    }
  }
}

// Read once a process; its warnings go to stderr then.
const KernelChoice& EnvChoice() {
  static const KernelChoice choice = [] {
    std::string warnings;
    KernelChoice c = ChoiceOf(Env(), &warnings);
    if (!warnings.empty()) std::fputs(warnings.c_str(), stderr);
    return c;
  }();
  return choice;
}

// Position of the first pattern that matches, 0 without a priority list; none: the choice leaves the kernel out.
std::optional<std::size_t> Rank(const KernelChoice& choice, std::string_view kernel) {
  if (choice.priority.empty()) return 0;
  const auto it = std::ranges::find_if(choice.priority, [&](const std::string& x) { return MatchesPattern(x, kernel); });
  if (it == choice.priority.end()) return std::nullopt;
  return static_cast<std::size_t>(it - choice.priority.begin());
}

// Why an able kernel lost, from its time over that of the chosen one.
std::string LostBy(double ratio) {
  char text[80];
  const double times = ratio < 1 ? 1 / ratio : ratio;
  const char* number = times < 10 ? "%.1fx" : "%.0fx";
  std::snprintf(text, sizeof text, number, times);
  if (ratio > 1.05) return std::string("can do it, about ") + text + " slower";
  if (ratio < 0.95) return std::string("can do it, about ") + text + " faster, but comes later in the order of preference";
  return "can do it, comes later in the order of preference";
}

std::string Join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ",") + word;
  return text;
}

// No kernel is left: says what was asked for, and why each candidate is out.
[[noreturn]] void ThrowNoneAble(Rows rows, std::span<const Rejection> rejected, const KernelChoice& choice,
                                std::string_view source) {
  std::string asked = choice.priority.empty() ? "every kernel" : Join(choice.priority);
  if (!choice.exclude.empty()) asked += " but " + Join(choice.exclude);
  if (!source.empty()) asked += " (" + std::string(source) + ")";

  std::vector<Rejection> candidates;
  for (const Rejection& r : rejected) {
    if (Rank(choice, r.kernel)) candidates.push_back(r);
  }
  std::string reasons;
  const auto add = [&](const std::string& text) { reasons += (reasons.empty() ? "" : "; ") + text; };
  for (const std::string& pattern : choice.priority) {
    if (!HasRow(rows, pattern)) add(pattern + ": this build has no such kernel (`regard list` shows those it has)");
  }
  for (const RejectionGroup& g : GroupRejections(candidates)) {
    const Rejection& r = *g.rejection;
    add(g.Title() + ": " + r.reason + (r.remedy.empty() ? "" : " (" + r.remedy + ")"));
  }
  throw Error("kernel", asked, "a kernel that can do this problem: " + reasons);
}

// Why `k` is not to run, where that is the choice's doing and not its own.
Rejection RejectionByChoice(const KernelInfo& k, bool excluded, bool from_environment) {
  if (excluded) {
    return {k.name, "excluded by choice",
            from_environment ? "take it out of REGARD_BACKENDS" : "take it off the exclusions", false};
  }
  return {k.name, "not among the kernels asked for",
          from_environment ? "add it to REGARD_BACKENDS" : "add it to the priority list", false};
}

// Every row but the chosen one (null: every row), whose estimated time is `seconds`.
std::vector<Rejection> ReasonsAgainst(Rows rows, const Problem& p, const DeviceCaps& caps, const KernelChoice& choice,
                                      std::string_view source, const KernelInfo* chosen, double seconds) {
  std::vector<Rejection> rejected;
  rejected.reserve(rows.size());
  for (const KernelInfo* k : rows) {
    if (k == chosen) continue;
    const Verdict v = k->supports(*k, p, caps);
    if (!v.accepted) {
      Verdict::Words said = v.Said(caps);
      rejected.push_back({k->name, std::move(said.reason), std::move(said.remedy), false});
    } else if (const bool excluded = MatchesAny(choice.exclude, k->name); excluded || !Rank(choice, k->name)) {
      rejected.push_back(RejectionByChoice(*k, excluded, source == kEnvironment));
    } else {
      rejected.push_back({k->name, LostBy(k->cost(*k, p, caps).seconds / seconds), "", true});
    }
  }
  return rejected;
}

}  // namespace

// A selection's arguments and result, from which its rejections follow.
struct Rejections::Source {
  Rows rows;
  Problem problem;
  DeviceCaps caps;
  KernelChoice choice;
  std::string_view origin;  // `source` of SelectAmong: of static lifetime
  const KernelInfo* chosen;
  double seconds;
  std::once_flag once;
  std::vector<Rejection> list;
};

const std::vector<Rejection>& Rejections::list() const {
  static const std::vector<Rejection> none;
  if (!source_) return none;
  Source& s = *source_;
  std::call_once(s.once, [&s] {
    s.list = ReasonsAgainst(s.rows, s.problem, s.caps, s.choice, s.origin, s.chosen, s.seconds);
  });
  return s.list;
}

bool MatchesPattern(std::string_view pattern, std::string_view kernel) {
  if (!kernel.starts_with(pattern)) return false;
  return kernel.size() == pattern.size() || kernel[pattern.size()] == '.';
}

std::string RejectionGroup::Title() const {
  const std::string first(kernels.front());
  return kernels.size() == 1 ? first : first + " and " + std::to_string(kernels.size() - 1) + " more";
}

std::vector<RejectionGroup> GroupRejections(std::span<const Rejection> rejected) {
  std::vector<RejectionGroup> groups;
  for (const Rejection& r : rejected) {
    const auto same = std::ranges::find_if(groups, [&](const RejectionGroup& g) {
      return g.rejection->reason == r.reason && g.rejection->remedy == r.remedy;
    });
    if (same == groups.end()) {
      groups.push_back({{r.kernel}, &r});
    } else {
      same->kernels.push_back(r.kernel);
    }
  }
  return groups;
}

KernelChoice ChoiceOf(const EnvSettings& settings, std::string* warnings) {
  KernelChoice choice;
  for (const std::string& word : settings.backends) {
    const bool exclude = word.starts_with('-');
    const std::string pattern = exclude ? word.substr(1) : word;
    if (Known(AllKernels(), pattern)) {
      (exclude ? choice.exclude : choice.priority).push_back(pattern);
    } else {
      *warnings += "regard: REGARD_BACKENDS: " + word + " matches no kernel and is ignored; expected " +
                   ExpectedPattern(AllKernels(), pattern) + "\n";
    }
  }
  return choice;
}

ScopedKernelChoice::ScopedKernelChoice(KernelChoice choice) : choice_(std::move(choice)), outer_(scoped_choice) {
  RequireKnown(AllKernels(), choice_);
  scoped_choice = &choice_;
}
ScopedKernelChoice::~ScopedKernelChoice() { scoped_choice = outer_; }

const Rejection& Selection::RejectionOf(std::string_view name) const {
  for (const Rejection& r : rejected) {
    if (r.kernel == name) return r;
  }
  throw Error("kernel", std::string(name), "a kernel that was rejected");
}

Selection Select(const Problem& p, const DeviceCaps& caps) {
  if (scoped_choice) return SelectAmong(AllKernels(), p, caps, *scoped_choice, "ScopedKernelChoice");
  const KernelChoice& environment = EnvChoice();
  return SelectAmong(AllKernels(), p, caps, environment, environment == KernelChoice{} ? "" : kEnvironment);
}

Selection Select(const Problem& p, const DeviceCaps& caps, const KernelChoice& choice) {
  return SelectAmong(AllKernels(), p, caps, choice);
}

Selection SelectAmong(Rows rows, const Problem& p, const DeviceCaps& caps, const KernelChoice& choice,
                      std::string_view source) {
  Validate(p);
  RequireKnown(rows, choice);
  const auto rank_of = [&](const KernelInfo& k) -> std::optional<std::size_t> {  // none: it is not to run, or cannot
    if (k.device != caps.type) return std::nullopt;  // its supports() says so too, in words
    if (!k.supports(k, p, caps).accepted || MatchesAny(choice.exclude, k.name)) return std::nullopt;
    return Rank(choice, k.name);
  };
  Selection s;
  std::size_t best_rank = 0;
  std::vector<const KernelInfo*> rivals;  // able rows of the best rank so far, in table order
  for (const KernelInfo* k : rows) {
    const std::optional<std::size_t> rank = rank_of(*k);
    if (!rank || (!rivals.empty() && *rank > best_rank)) continue;
    if (!rivals.empty() && *rank < best_rank) rivals.clear();
    best_rank = *rank;
    rivals.push_back(k);
  }
  if (rivals.empty()) ThrowNoneAble(rows, ReasonsAgainst(rows, p, caps, choice, source, nullptr, 0), choice, source);

  s.chosen = rivals.front();
  s.cost = s.chosen->cost(*s.chosen, p, caps);
  const std::string_view numerics = s.chosen->numerics;
  for (const KernelInfo* k : std::span(rivals).subspan(1)) {
    if (numerics != k->numerics) continue;
    const Cost cost = k->cost(*k, p, caps);
    if (cost.seconds >= s.cost.seconds) continue;
    s.chosen = k;
    s.cost = cost;
  }
  s.kernel = s.chosen->name;
  s.numerics = s.chosen->numerics;
  if (caps.gpu) s.gpu = std::make_shared<const DeviceCaps>(caps);
  auto lost = std::make_shared<Rejections::Source>();
  lost->rows = rows;
  lost->problem = p;
  lost->caps = caps;
  lost->choice = choice;
  lost->origin = source;
  lost->chosen = s.chosen;
  lost->seconds = s.cost.seconds;
  s.rejected = Rejections(std::move(lost));
  return s;
}

}  // namespace regard
