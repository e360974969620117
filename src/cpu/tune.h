// The settings of a CPU plan that may be changed for experiments, and where each value comes from:
//   REGARD_TUNE="task_rows=192 min_task_rows=96 share=262144 block=256 split=512 prefetch=2 keep=64"
// (spaces or commas between). It is read when a plan is made; the plan keeps the values, `regard explain` shows them.
//
// task_rows, min_task_rows, share, prefetch and keep change no bit. block and split are numerics: a plan whose values
// differ from the defaults has invariance none and a numerics id of its own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "regard/plan.h"

namespace regard::cpu {

struct Tuning {
  // In the order of kTunables (tune.cc).
  enum Name { kTaskRows, kMinTaskRows, kShare, kBlock, kSplit, kPrefetch, kKeep, kCount };
  enum class Source : std::uint8_t { kDefault, kVariable };
  struct Setting {
    std::int64_t value = 0;
    Source source = Source::kDefault;
  };
  Setting settings[kCount];

  std::int64_t operator[](Name name) const { return settings[name].value; }
  // Whether rows have the bits that the kernel's own numerics id names.
  bool HasDefaultNumerics() const;
};

// The settings of a plan: defaults, then `variable` (REGARD_TUNE's text). Throws
// Error{"REGARD_TUNE", ...} for a name that is not known, a value out of range, and values that do not go together.
Tuning TuningFor(std::string_view variable);

// For PlanShape and explain.
std::vector<PlanSetting> SettingsOf(const Tuning& tuning);

// `numerics` of a kernel's row ("avx2.f32.chain1.block512.split1024") with the tuning's block and split.
std::string NumericsWith(const Tuning& tuning, std::string_view numerics);

}  // namespace regard::cpu
