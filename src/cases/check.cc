// One case: make inputs, compute the oracle once (for appends on a copy of its own, with the new keys written by the
// reference), then run each able kernel on poisoned outputs and compare.
#include "src/cases/check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>

#include "src/cases/cases.h"
#include "src/cases/on_device.h"
#include "src/cases/oracle.h"
#include "src/problem/extent.h"
#include "src/reference/reference.h"

namespace regard::cases {
namespace {

constexpr std::string_view kReference = "reference";
constexpr double kSmallProducts = 1 << 23;  // multiply-adds

// One tensor that a kernel wrote, and how far from the reference it may be.
struct Written {
  std::vector<float> values;
  double bound;
};

// What a kernel left in out and lse, or in the gradients, for comparison with others.
struct Output {
  const KernelInfo* kernel;
  std::vector<Written> tensors;
};

// Elements in memory order: tensors of a generated case are dense blocks in some order of their dims.
std::vector<float> Values(const TensorView& view) {
  std::vector<float> values(static_cast<std::size_t>(view.Elements()));
  for (std::size_t n = 0; n < values.size(); ++n) values[n] = LoadFloat(view.data, view.dtype, static_cast<std::int64_t>(n));
  return values;
}

std::vector<Written> WrittenBy(const Problem& p, const BackwardArgs& call, const Accuracy& accuracy) {
  std::vector<Written> tensors;
  if (p.phase != Phase::kBackward) {
    tensors.push_back({Values(call.forward.out), accuracy.out_bound});
    if (call.forward.lse) tensors.push_back({Values(*call.forward.lse), accuracy.lse_bound});
    return tensors;
  }
  std::vector<const TensorView*> gradients = {&call.dq, &call.dk, &call.dv};
  if (call.dbias) gradients.push_back(&*call.dbias);
  if (call.dsink) gradients.push_back(&*call.dsink);
  for (std::size_t n = 0; n < gradients.size(); ++n) tensors.push_back({Values(*gradients[n]), accuracy.gradients[n].bound});
  return tensors;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

bool Near(const std::vector<float>& a, const std::vector<float>& b, double bound) {
  for (std::size_t n = 0; n < a.size(); ++n) {
    if (a[n] == b[n] || (std::isnan(a[n]) && std::isnan(b[n]))) continue;
    if (!(std::fabs(static_cast<double>(a[n]) - b[n]) <= bound)) return false;
  }
  return true;
}

// Largest relative distance of two stored values that one rounding may cause, and the absolute one near 0.
double RelativeStep(DType t) {
  switch (t) {
    case DType::kF32: return 1e-5;
    case DType::kF16: return 0x1p-10;
    case DType::kBF16: return 0x1p-7;
    case DType::kF8E4M3: return 0x1p-3;
    default: return 0x1p-2;
  }
}

// The first element in which two caches differ, or nothing. Values that rotary turned may differ by one rounding;
// everything else is bitwise equal, poison included.
std::optional<std::string> CacheDifference(const char* name, const TensorView& got, const TensorView& expected,
                                           bool rotated) {
  const std::size_t size = SizeOf(got.dtype);
  const auto* a = static_cast<const std::byte*>(got.data);
  const auto* b = static_cast<const std::byte*>(expected.data);
  const auto elements = static_cast<std::size_t>(got.Elements());
  if (elements == 0 || std::memcmp(a, b, elements * size) == 0) return std::nullopt;
  const double step = RelativeStep(got.dtype);
  for (std::size_t n = 0; n < elements; ++n) {
    if (std::memcmp(a + n * size, b + n * size, size) == 0) continue;
    const double x = LoadFloat(got.data, got.dtype, static_cast<std::int64_t>(n));
    const double y = LoadFloat(expected.data, expected.dtype, static_cast<std::int64_t>(n));
    if (std::isnan(x) && std::isnan(y)) continue;
    if (rotated && std::fabs(x - y) <= step * std::max(1.0, std::fabs(y))) continue;
    return std::string("appended ") + name + ", element " + std::to_string(n) + " of its memory: got " +
           std::to_string(x) + " expected " + std::to_string(y);
  }
  return std::nullopt;
}

class Checker {
 public:
  Checker(std::span<const KernelInfo* const> kernels, const CheckOptions& options, const DeviceCaps& caps,
          CheckReport& report)
      : kernels_(kernels), options_(options), caps_(caps), report_(report), scores_(kernels.size()) {}

  void RunCase(const Problem& p) {
    const std::vector<std::size_t> able = AbleKernels(p);
    if (able.empty()) {
      ++report_.unable;
      return;
    }
    Case inputs = MakeCase(p);
    const bool appends = p.append.has_value();
    Case judged;
    if (appends) {
      judged = inputs.Clone();
      Append(p, judged.args());
    }
    const std::int64_t rows = SampledRows(p);
    const CallOracle oracle(p, appends ? judged.call() : inputs.call(), rows);
    report_.sampled += rows > 0;

    std::vector<Output> outputs;
    for (const std::size_t k : able) {
      if (options_.interrupted && options_.interrupted()) {
        report_.interrupted = true;
        return;
      }
      Case copy;
      if (appends) copy = inputs.Clone();
      BackwardArgs& call = appends ? copy.call() : inputs.call();
      RunKernel(p, k, call, oracle, appends ? &judged.args() : nullptr, outputs);
    }
    if (options_.cross) Cross(p, outputs);
  }

  void Finish() {
    for (std::size_t k = 0; k < kernels_.size(); ++k) {
      if (scores_[k].cases == 0) continue;
      scores_[k].kernel = kernels_[k]->name;
      report_.kernels.push_back(scores_[k]);
    }
  }

 private:
  std::vector<std::size_t> AbleKernels(const Problem& p) const {
    std::vector<std::size_t> able;
    for (std::size_t k = 0; k < kernels_.size(); ++k) {
      const DeviceCaps* caps = DeviceOfKernel(*kernels_[k], caps_);
      if (caps && kernels_[k]->supports(*kernels_[k], p, *caps).accepted) able.push_back(k);
    }
    if (!options_.reference_too && able.size() > 1) {
      std::erase_if(able, [&](std::size_t k) { return kernels_[k]->name == kReference; });
    }
    return able;
  }

  static void Append(const Problem& p, const AttentionArgs& args) {
    std::vector<Sequence> sequences(static_cast<std::size_t>(BatchOf(args)));
    std::vector<std::byte> scratch(ResolveScratchBytes(p));
    ResolveArgs(p, args, true, sequences, scratch);
    reference::AppendKv(p, args, sequences);
  }

  // Waking threads costs more than a small case, above all on a busy machine: three in four small ones run on one thread.
  // The number of threads changes no bit (docs/semantics.md), so a REPRO line shows the same miss on any.
  Executor* ExecutorFor(const Problem& p) const {
    if (options_.executor) return options_.executor;
    const bool small = VisiblePairs(p) * static_cast<double>(p.heads_q * (p.head_dim + p.head_dim_v)) < kSmallProducts;
    return small && p.seed % 4 != 0 ? serial_.get() : &DefaultExecutor();
  }

  void AddMiss(const Problem& p, std::size_t k, std::string what, bool cross = false) {
    ++scores_[k].misses;
    report_.misses.push_back({Print(p), kernels_[k]->name, std::move(what), cross});
  }

  // `judged`: the arguments whose caches the reference appended to; null without an append.
  void RunKernel(const Problem& p, std::size_t k, BackwardArgs& call, const CallOracle& oracle,
                 const AttentionArgs* judged, std::vector<Output>& outputs) {
    const KernelInfo& kernel = *kernels_[k];
    KernelScore& score = scores_[k];
    ++score.cases;
    ++report_.runs;
    PoisonOutputs(p, call);
    try {
      Selection selection;
      selection.chosen = &kernel;
      selection.kernel = kernel.name;
      selection.numerics = kernel.numerics;
      const DeviceCaps& caps = *DeviceOfKernel(kernel, caps_);
      selection.cost = kernel.cost(kernel, p, caps);
      if (caps.gpu) selection.gpu = std::make_shared<const DeviceCaps>(caps);
      const Plan plan(p, selection, ExecutorFor(p));
      const CaseOnDevice run(plan, call);
      run.Launch();
      run.Finish();
    } catch (const std::exception& e) {
      score.worst_ratio = std::numeric_limits<double>::infinity();
      score.worst_case = Print(p);
      return AddMiss(p, k, e.what());
    }
    const Accuracy accuracy = oracle.Compare(call);
    if (score.worst_case.empty() || accuracy.ratio() > score.worst_ratio) {
      score.worst_ratio = accuracy.ratio();
      score.out_error = accuracy.out_error;
      score.worst_case = Print(p);
    }
    if (!accuracy.ok()) {
      AddMiss(p, k, accuracy.where);
    } else if (judged) {
      const bool rotated = p.options.rotary != Rotary::kNone;
      auto difference = CacheDifference("k", call.forward.k, judged->k, rotated);
      if (!difference) difference = CacheDifference("v", call.forward.v, judged->v, false);
      if (difference) AddMiss(p, k, *difference);
    }
    if (options_.cross) outputs.push_back({&kernel, WrittenBy(p, call, accuracy)});
  }

  void Cross(const Problem& p, const std::vector<Output>& outputs) {
    for (std::size_t second = 1; second < outputs.size(); ++second) {
      for (std::size_t first = 0; first < second; ++first) {
        const Output &a = outputs[first], &b = outputs[second];
        ++report_.compared;
        const bool same_numerics = std::string_view(a.kernel->numerics) == b.kernel->numerics;
        bool equal = true;
        for (std::size_t t = 0; t < a.tensors.size(); ++t) {
          const Written &x = a.tensors[t], &y = b.tensors[t];
          equal &= same_numerics ? SameBits(x.values, y.values) : Near(x.values, y.values, x.bound + y.bound);
        }
        if (equal) continue;
        const auto at = std::find(kernels_.begin(), kernels_.end(), b.kernel) - kernels_.begin();
        AddMiss(p, static_cast<std::size_t>(at),
                std::string(same_numerics ? "other bits than " : "too far from ") + a.kernel->name +
                    (same_numerics ? std::string(", which has the same numerics ") + a.kernel->numerics : ""),
                true);
      }
    }
  }

  std::span<const KernelInfo* const> kernels_;
  const CheckOptions& options_;
  const DeviceCaps& caps_;
  CheckReport& report_;
  std::vector<KernelScore> scores_;  // one a kernel
  const std::unique_ptr<Executor> serial_{MakeExecutor(ExecutorKind::kSerial, 1)};
};

}  // namespace

CheckReport RunCheck(std::span<const Problem> problems, std::span<const KernelInfo* const> kernels,
                     const CheckOptions& options, const DeviceCaps& caps) {
  CheckReport report;
  Checker checker(kernels, options, caps, report);
  for (const Problem& p : problems) {
    Validate(p);
    if (options.interrupted && options.interrupted()) report.interrupted = true;
    if (!report.interrupted) checker.RunCase(p);
    if (report.interrupted) break;
    ++report.cases;
    if (options.progress) options.progress(static_cast<std::size_t>(report.cases), problems.size(), report.misses.size());
  }
  checker.Finish();
  return report;
}

}  // namespace regard::cases
