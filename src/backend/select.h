// The inner parts of selection: what explain prints with, and what tests drive with tables and environments of their own.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/backend/kernel_info.h"
#include "src/core/env.h"

namespace regard {

// A pattern is a kernel's name or a dotted prefix of it.
bool MatchesPattern(std::string_view pattern, std::string_view kernel);

// Select over any table, which outlives the result's rejections. `source` says where the choice comes from ("REGARD_BACKENDS"), for messages; "": the caller.
Selection SelectAmong(std::span<const KernelInfo* const> rows, const Problem& p, const DeviceCaps& caps,
                      const KernelChoice& choice, std::string_view source = "");

// REGARD_BACKENDS as a choice: "-pattern" excludes, anything else is the priority list. A pattern that matches no kernel
// is left out, with one line appended to *warnings.
KernelChoice ChoiceOf(const EnvSettings& settings, std::string* warnings);

// Rejections with the same reason and remedy, in table order. Views into `rejected`.
struct RejectionGroup {
  std::vector<std::string_view> kernels;
  const Rejection* rejection = nullptr;
  std::string Title() const;  // "cpu.avx2.decode.f32", or "cpu.avx2.decode.f32 and 3 more"
};
std::vector<RejectionGroup> GroupRejections(std::span<const Rejection> rejected);

}  // namespace regard
