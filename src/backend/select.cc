// Selection. The rule: of the kernels that the choice allows and that can do the problem, the first in order of
// preference wins: by the choice's patterns in their order, then by table order (best instruction set first). Tables
// list all phases of a numerics id side by side and a row refuses the phases of its sisters, so under full invariance
// the numerics id depends on dtype, head dims, options and device only (docs/semantics.md, "Determinism").
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "regard/plan.h"
#include "regard/status.h"
#include "src/backend/kernel_info.h"
#include "src/core/env.h"
#include "src/core/suggest.h"

namespace regard {
namespace {

thread_local const KernelChoice* scoped_choice = nullptr;

bool Matches(std::string_view pattern, std::string_view name) {
  return name == pattern || (name.size() > pattern.size() && name.starts_with(pattern) && name[pattern.size()] == '.');
}

bool Known(std::string_view pattern) {
  return std::ranges::any_of(AllKernels(), [&](const KernelInfo* k) { return Matches(pattern, k->name); });
}

std::string NearestPattern(const std::string& pattern) {
  std::set<std::string> known;
  for (const KernelInfo* k : AllKernels()) {
    const std::string name = k->name;
    for (std::size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) {
      known.insert(name.substr(0, dot));
    }
    known.insert(name);
  }
  const std::vector<std::string_view> views(known.begin(), known.end());
  return Nearest(pattern, views);
}

std::string ExpectedPattern(const std::string& pattern) {
  const std::string near = NearestPattern(pattern);
  return "a kernel name or a dotted prefix of one" + (near.empty() ? "" : ", such as " + near) +
         " (`regard list` shows them)";
}

void RequireKnown(const KernelChoice& choice) {
  for (const auto* patterns : {&choice.priority, &choice.exclude}) {
    for (const std::string& pattern : *patterns) {
      if (!Known(pattern)) throw Error("kernel", pattern, ExpectedPattern(pattern));
    }
  }
}

// REGARD_BACKENDS, less the patterns that match nothing: those are warned about once a process. Backends that a later
// release has are known words here.
const KernelChoice& EnvChoice() {
  static const KernelChoice choice = [] {
    KernelChoice c;
    for (const std::string& pattern : Env().backends) {
      if (Known(pattern)) {
        c.priority.push_back(pattern);
      } else {
        std::fprintf(stderr, "regard: REGARD_BACKENDS: %s matches no kernel and is ignored; expected %s\n",
                     pattern.c_str(), ExpectedPattern(pattern).c_str());
      }
    }
    return c;
  }();
  return choice;
}

// Position of the first pattern that matches; the number of patterns if none does.
std::size_t Rank(const KernelChoice& choice, std::string_view name) {
  const auto it = std::ranges::find_if(choice.priority, [&](const std::string& p) { return Matches(p, name); });
  return static_cast<std::size_t>(it - choice.priority.begin());
}

std::string Times(double ratio) {
  char text[64];
  if (!(ratio > 1.05)) return "can do it, no faster by estimate";
  std::snprintf(text, sizeof text, ratio < 10 ? "can do it, about %.1fx slower" : "can do it, about %.0fx slower", ratio);
  return text;
}

}  // namespace

ScopedKernelChoice::ScopedKernelChoice(KernelChoice choice) : choice_(std::move(choice)), outer_(scoped_choice) {
  RequireKnown(choice_);
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
  return Select(p, caps, scoped_choice ? *scoped_choice : EnvChoice());
}

Selection Select(const Problem& p, const DeviceCaps& caps, const KernelChoice& choice) {
  Validate(p);
  RequireKnown(choice);
  Selection s;
  struct Candidate {
    const KernelInfo* kernel;
    std::size_t rank;
  };
  std::vector<Candidate> able;
  for (const KernelInfo* k : AllKernels()) {
    const Verdict v = k->supports(*k, p, caps);
    const std::size_t rank = Rank(choice, k->name);
    if (!v.accepted) {
      s.rejected.push_back({k->name, v.reason, v.remedy, false});
    } else if (std::ranges::any_of(choice.exclude, [&](const std::string& x) { return Matches(x, k->name); })) {
      s.rejected.push_back({k->name, "excluded by choice", "take it off the exclusions", false});
    } else if (!choice.priority.empty() && rank == choice.priority.size()) {
      s.rejected.push_back({k->name, "not among the kernels asked for", "add it to the priority list", false});
    } else {
      able.push_back({k, rank});
      s.rejected.push_back({k->name, "", "", true});
    }
  }
  if (able.empty()) {
    std::string asked, reasons;
    for (const std::string& pattern : choice.priority) asked += (asked.empty() ? "" : ",") + pattern;
    for (const Rejection& r : s.rejected) {
      if (!choice.priority.empty() && Rank(choice, r.kernel) == choice.priority.size()) continue;
      reasons += (reasons.empty() ? "" : "; ") + r.kernel + ": " + r.reason + (r.remedy.empty() ? "" : " (" + r.remedy + ")");
    }
    throw Error("kernel", asked.empty() ? "every kernel" : asked, "a kernel that can do this problem: " + reasons);
  }
  const auto best = std::ranges::min_element(able, {}, &Candidate::rank);  // the first of equals: table order
  s.chosen = best->kernel;
  s.kernel = s.chosen->name;
  s.numerics = s.chosen->numerics;
  s.cost = s.chosen->cost(*s.chosen, p, caps);
  std::erase_if(s.rejected, [&](const Rejection& r) { return r.kernel == s.kernel; });
  for (Rejection& r : s.rejected) {
    if (!r.able) continue;
    const KernelInfo* k = FindKernel(r.kernel);
    r.reason = Times(k->cost(*k, p, caps).seconds / s.cost.seconds);
  }
  return s;
}

}  // namespace regard
