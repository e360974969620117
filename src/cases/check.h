// The check behind `regard check`: every able kernel on every case, held to the accuracy rule, and (on request) kernels
// against each other. The kernels come as a list, so that a test can plant a wrong one.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "regard/device.h"
#include "regard/executor.h"
#include "src/backend/kernel_info.h"

namespace regard::cases {

struct CheckOptions {
  // Hold kernels against each other too: equal numerics ids give equal bits, others differ by at most the sum of bounds.
  bool cross = false;
  // The row named "reference" runs the oracle itself; unless asked for, it runs only where no other kernel can.
  bool reference_too = false;
  Executor* executor = nullptr;               // default: one thread or DefaultExecutor(), case by case
  std::function<bool()> interrupted;          // asked between runs; true stops the check
  std::function<void(std::size_t done, std::size_t total, std::size_t misses)> progress;  // after each case
};

struct KernelScore {
  std::string kernel;
  std::int64_t cases = 0, misses = 0;
  double worst_ratio = 0;      // error / bound
  double out_error = 0;        // of that case
  std::string worst_case;
};

struct Miss {
  std::string problem, kernel;
  std::string what;            // where, got and expected; or the error that a kernel threw
  bool cross = false;          // against another kernel, not against the oracle
};

struct CheckReport {
  std::vector<KernelScore> kernels;  // in the order of the list; those that ran
  std::vector<Miss> misses;
  std::int64_t cases = 0;      // done
  std::int64_t runs = 0;       // kernel x case
  std::int64_t unable = 0;     // cases that no kernel of the list supports
  std::int64_t sampled = 0;    // large cases, of which only some rows were compared
  std::int64_t compared = 0;   // pairs of kernels
  bool interrupted = false;
  bool ok() const { return misses.empty() && !interrupted; }
};

// Throws Error for an illegal problem. A kernel that throws has missed.
CheckReport RunCheck(std::span<const Problem> problems, std::span<const KernelInfo* const> kernels,
                     const CheckOptions& options = {}, const DeviceCaps& caps = DeviceCaps::Host());

}  // namespace regard::cases
