// Select, Plan, Launch: choose a kernel and say why; fix tiles, splits and workspace; run it, many times.
//
//   Problem p = ProblemOf(args, options);           // or a bound that covers every step to come
//   Selection s = Select(p, DeviceCaps::Host());    // pure; never throws for a legal problem unless a choice forbids all
//   Plan plan(p, s);                                // immutable, shared by threads
//   Launch(plan, args, workspace);                  // checks, no allocation, no selection
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "regard/device.h"
#include "regard/executor.h"
#include "regard/export.h"
#include "regard/problem.h"

namespace regard {

struct AttentionArgs;  // attention.h
struct BackwardArgs;   // attention.h
struct KernelInfo;     // a row of a backend's table; opaque here

// Which kernels may run, in which order. A pattern is a kernel name or a dotted prefix of one: "cpu", "cpu.avx2",
// "cpu.avx512_bf16.decode.bf16", "reference".
struct KernelChoice {
  std::vector<std::string> priority;  // if not empty: only kernels that match one, in this order, then the table's order
  std::vector<std::string> exclude;   // never these
  bool operator==(const KernelChoice&) const = default;
};

// Applies `choice` to every Select of this thread that gives none itself, until destruction; scopes nest, the inner wins.
class REGARD_API ScopedKernelChoice {
 public:
  explicit ScopedKernelChoice(KernelChoice choice);
  ~ScopedKernelChoice();
  ScopedKernelChoice(const ScopedKernelChoice&) = delete;
  ScopedKernelChoice& operator=(const ScopedKernelChoice&) = delete;

 private:
  KernelChoice choice_;
  const KernelChoice* outer_;
};

struct Cost {
  double flops = 0;      // of visible pairs only: 2 * (D + Dv [+ Dv with qv]) each; backward 2 * (3 * D + 2 * Dv)
  double bytes = 0;      // least traffic: every q, k, v, out (backward: and gradient) element once
  double seconds = 0;    // estimate on the given device
};

struct Rejection {
  std::string kernel;
  std::string reason;   // "seq_q 1, needs >= 16"
  std::string remedy;   // what the user can do; may be empty
  bool able = false;    // it could run, and lost by cost or order
};

// The kernels that were not chosen, in table order. A list like any other, but its texts are written when it is first
// looked at (by any thread; copies share them), so that a selection whose reasons nobody reads costs little.
class REGARD_API Rejections {
 public:
  struct Source;  // what was selected from
  Rejections() = default;
  explicit Rejections(std::shared_ptr<Source> source) noexcept : source_(std::move(source)) {}
  const std::vector<Rejection>& list() const;
  std::vector<Rejection>::const_iterator begin() const { return list().begin(); }
  std::vector<Rejection>::const_iterator end() const { return list().end(); }
  std::size_t size() const { return list().size(); }
  bool empty() const { return list().empty(); }
  const Rejection& operator[](std::size_t i) const { return list()[i]; }

 private:
  std::shared_ptr<Source> source_;
};

struct REGARD_API Selection {
  const KernelInfo* chosen = nullptr;
  std::string kernel;      // its name
  std::string numerics;    // its numerics id: equal ids give equal bits
  Cost cost;
  Rejections rejected;
  std::shared_ptr<const DeviceCaps> gpu;  // the GPU that it was made for; null: the CPU
  // Throws Error{"kernel"} if no such rejection.
  const Rejection& RejectionOf(std::string_view kernel) const;
};

// Pure in (p, caps, choice). Without `choice`: the innermost ScopedKernelChoice, else REGARD_BACKENDS, else everything.
// Throws Error: illegal problem; choice names no known kernel; choice leaves no able kernel (with every reason).
REGARD_API Selection Select(const Problem& p, const DeviceCaps& caps);
REGARD_API Selection Select(const Problem& p, const DeviceCaps& caps, const KernelChoice& choice);

// One setting of a kernel's plan: "task_rows", 384, "default"; the other source is REGARD_TUNE.
struct PlanSetting {
  std::string name;
  std::int64_t value = 0;
  std::string source;
};

// How a plan cuts the work; for explain and for tests. On a GPU a task is a block of threads.
struct PlanShape {
  std::int64_t rows_per_tile = 0;       // query rows of a register tile; GPU: of a warp
  std::int64_t rows_per_task = 0;       // query rows (positions x group) of a prefill task
  std::int64_t kv_block_tokens = 0;     // numerics: block of the running maximum
  std::int64_t kv_split_tokens = 0;     // numerics: states fold at multiples of it
  std::int64_t max_tasks = 0;
  int threads = 1;                      // of the executor; GPU: of a block
  std::vector<PlanSetting> settings;    // all that may be tuned; empty where nothing can
  std::vector<std::string> instances;   // GPU: the compiled kernels of a launch, in their order
};

class REGARD_API Plan {
 public:
  // `bounds` covers every launch to come: batch, seq_q, seq_kv, append are upper bounds, everything else is exact.
  // The executor (default: DefaultExecutor()) must outlive the plan.
  // Where REGARD_TUNE changes the numerics, the plan's problem has invariance none and its selection the numerics id that
  // holds. Throws Error{"REGARD_TUNE"} for settings that are not understood.
  Plan(const Problem& bounds, const Selection& selection, Executor* executor = nullptr);
  Plan(const Problem& bounds, const DeviceCaps& caps = DeviceCaps::Host(), Executor* executor = nullptr);
  ~Plan();
  Plan(Plan&&) noexcept;
  Plan& operator=(Plan&&) noexcept;

  const Problem& problem() const noexcept;
  const Selection& selection() const noexcept;
  const PlanShape& shape() const noexcept;
  std::size_t workspace_bytes() const noexcept;  // what Launch needs, in the memory of the plan's device
  Executor& executor() const noexcept;

  struct Impl;
  const Impl& impl() const noexcept { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

// Caller-provided scratch memory on the plan's device; one launch at a time may use it. Any alignment (a plan's size
// allows for it).
struct Workspace {
  void* data = nullptr;
  std::size_t bytes = 0;
};

// A CUstream (cudaStream_t) of the caller's, for plans of a GPU; null: the default stream. A launch puts its kernels
// there and returns: it neither waits nor allocates, so that a stream may be captured into a graph.
struct Stream {
  void* handle = nullptr;
};

// Checks args against the plan (shapes, dtypes, bounds, host tables), then runs. Allocates nothing. Throws Error before
// anything is written: see docs/validation.md. args.out is required; args.lse where the problem wants it.
// On a GPU lengths and tables are on the device too, where the kernels check them: a bad entry is skipped, reads and
// writes alike, and a later launch or CheckDevice throws Error{"cuda.tables"}.
REGARD_API void Launch(const Plan& plan, const AttentionArgs& args, Workspace workspace, Stream stream = {});
// Without the checks: undefined for args that Launch would refuse.
REGARD_API void LaunchUnchecked(const Plan& plan, const AttentionArgs& args, Workspace workspace, Stream stream = {});

// The same for a plan whose problem has the phase backward; every gradient view needs memory.
REGARD_API void LaunchBackward(const Plan& plan, const BackwardArgs& args, Workspace workspace, Stream stream = {});
REGARD_API void LaunchBackwardUnchecked(const Plan& plan, const BackwardArgs& args, Workspace workspace,
                                        Stream stream = {});

// Waits for `stream`, then throws Error{"cuda.tables"} if a kernel on that GPU has met a bad length or table entry
// since the last such error. Does nothing for a CPU.
REGARD_API void CheckDevice(Device device, Stream stream = {});

// The text that `regard explain` prints, and the same as JSON.
REGARD_API std::string ExplainText(const Problem& p, const DeviceCaps& caps, const Plan* plan, const Selection& s);
REGARD_API std::string ExplainJson(const Problem& p, const DeviceCaps& caps, const Plan* plan, const Selection& s);

}  // namespace regard
