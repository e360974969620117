// Plan and Launch. A launch's workspace on the CPU: the sequences, the checks' scratch, then the kernel's own, each
// 64-byte aligned; on a GPU the kernel's own alone, 256-byte aligned. A plan owns its numbers and shares them among its
// copies' threads; workspace, tensors and executor are the caller's.
#include "regard/plan.h"

#include <algorithm>
#include <string>

#include "regard/attention.h"
#include "regard/status.h"
#include "src/backend/byte_span.h"
#include "src/backend/plan_impl.h"
#include "src/cuda/check_call.h"
#include "src/problem/checks.h"

namespace regard {
namespace {

constexpr std::size_t kAlign = 64, kGpuAlign = 256;
std::size_t RoundUp(std::size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

// Every intermediate size of a plan within these bounds stays far below 2^63 bytes: at most 15 partial states of
// (Dv + 18) floats for each 1024 keys, under 2^11 bytes for each element of q, k and v.
void RequirePlannable(const Problem& p) {
  constexpr double kMaxElements = 4503599627370496.0;  // 2^52
  const double rows = static_cast<double>(p.seq_q) + static_cast<double>(p.seq_kv);
  const double elements = static_cast<double>(std::max<std::int64_t>(p.batch, 1)) * (rows + 1) *
                          static_cast<double>(p.heads_q) * static_cast<double>(p.head_dim + p.head_dim_v);
  if (elements > kMaxElements) {
    throw Error("bounds", "b * (sq + skv) * hq * (d + dv) of more than 2^52", "a problem that fits a machine's memory");
  }
}

// A launch writes its workspace before it has checked the tables, so that none of them may lie in it. A view whose span
// overflows is refused by ResolveArgs.
void RequireApart(const AttentionArgs& args, const BackwardArgs* backward, const std::byte* begin, std::size_t bytes) {
  const auto low = reinterpret_cast<std::uintptr_t>(begin);
  const auto check = [&](const char* name, const TensorView& view) {
    const std::optional<ByteSpan> span = SpanOf(view);
    if (span && span->begin < low + bytes && low < span->end) throw Error("workspace", std::string("overlaps ") + name, "memory of its own");
  };
  check("q", args.q);
  check("k", args.k);
  check("v", args.v);
  check("out", args.out);
  for (const checks::Member& m : checks::OptionalMembers()) {
    if (const auto& view = args.*m.view) check(m.name, *view);
  }
  if (!backward) return;
  for (const checks::BackwardMember& m : checks::BackwardMembers(*backward)) {
    if (m.view) check(m.name, *m.view);
  }
}

std::byte* Aligned(void* data, std::size_t alignment) {
  auto* bytes = static_cast<std::byte*>(data);
  return bytes + (alignment - reinterpret_cast<std::uintptr_t>(bytes) % alignment) % alignment;
}

// `backward` is null for a forward pass; else `args` is its member.
void Run(const Plan& plan, const AttentionArgs& args, const BackwardArgs* backward, Workspace workspace, Stream stream,
         bool check) {
  const Plan::Impl& impl = plan.impl();
  if ((impl.problem.phase == Phase::kBackward) != (backward != nullptr)) {
    throw Error("plan", backward ? "of a forward phase" : "of the phase backward",
                backward ? "a plan of the phase backward, or Launch" : "a plan of a forward phase, or LaunchBackward");
  }
  if (workspace.bytes < impl.total_bytes || (workspace.data == nullptr && impl.total_bytes > 0)) {
    throw Error("workspace", std::to_string(workspace.data ? workspace.bytes : 0) + " bytes",
                "at least " + std::to_string(impl.total_bytes) + " bytes (Plan::workspace_bytes)");
  }
  if (!impl.refusal.empty()) throw Error("plan", impl.selection.kernel, impl.refusal);
  if (check) RequireApart(args, backward, static_cast<const std::byte*>(workspace.data), impl.total_bytes);
  if (impl.device.type == DeviceType::kCuda) {
    if (check) cuda::CheckCall(impl.problem, args, backward, impl.device);
    std::byte* const own = Aligned(workspace.data, kGpuAlign);
    return impl.selection.chosen->launch(
        {impl.problem, args, {}, impl.kernel, *impl.executor, {own, impl.kernel.workspace_bytes}, backward, stream});
  }
  std::byte* const base = Aligned(workspace.data, kAlign);
  auto* sequences = reinterpret_cast<Sequence*>(base);
  const auto room = static_cast<std::size_t>(std::max<std::int64_t>(impl.problem.batch, 1));
  std::byte* scratch = base + impl.sequences_bytes;
  if (backward) {
    ResolveBackward(impl.problem, *backward, check, {sequences, room});
  } else {
    ResolveArgs(impl.problem, args, check, {sequences, room}, {scratch, impl.scratch_bytes});
  }
  const auto batch = static_cast<std::size_t>(BatchOf(args));
  impl.selection.chosen->launch({impl.problem, args, {sequences, batch}, impl.kernel, *impl.executor,
                                 {scratch + impl.scratch_bytes, impl.kernel.workspace_bytes}, backward, stream});
}

}  // namespace

Plan::Plan(const Problem& bounds, const Selection& selection, Executor* executor) {
  Validate(bounds);
  RequirePlannable(bounds);
  if (selection.chosen == nullptr) throw Error("selection", "no kernel chosen", "the result of Select");
  auto impl = std::make_shared<Impl>();
  impl->problem = bounds;
  impl->selection = selection;
  impl->executor = executor ? executor : &DefaultExecutor();
  const KernelInfo& kernel = *selection.chosen;
  // A selection for another CPU or another problem may be planned, so that it can be explained, but never run; kernels of
  // a GPU are compiled for what they can do.
  const DeviceCaps& caps = selection.gpu ? *selection.gpu : DeviceCaps::Host();
  const Verdict verdict = kernel.supports(kernel, bounds, caps);
  if (!verdict.accepted) {
    const std::string reason = verdict.Said(caps).reason;
    impl->refusal = "a kernel that can run the plan's problem here: " + reason;
    if (caps.gpu || kernel.device == DeviceType::kCuda) {
      throw Error("selection", kernel.name, "a kernel that can do the plan's problem on its device: " + reason);
    }
  }
  if (caps.gpu) {
    impl->device = {DeviceType::kCuda, caps.gpu->index.value_or(0)};
    if (!caps.gpu->index) impl->refusal = "a plan for a GPU of this machine; the " + caps.name + " is pretended";
  }
  impl->kernel = kernel.plan(kernel, bounds, caps, impl->executor->threads());
  if (!impl->kernel.numerics.empty()) {
    impl->selection.numerics = impl->kernel.numerics;
    impl->problem.options.invariance = Invariance::kNone;
  }
  if (caps.gpu) {
    if (impl->kernel.workspace_bytes > 0) impl->total_bytes = kGpuAlign + impl->kernel.workspace_bytes;
    impl_ = std::move(impl);
    return;
  }
  impl->sequences_bytes = RoundUp(static_cast<std::size_t>(std::max<std::int64_t>(bounds.batch, 1)) * sizeof(Sequence));
  impl->scratch_bytes = RoundUp(ResolveScratchBytes(bounds));
  impl->total_bytes = kAlign + impl->sequences_bytes + impl->scratch_bytes + RoundUp(impl->kernel.workspace_bytes);
  impl_ = std::move(impl);
}
Plan::Plan(const Problem& bounds, const DeviceCaps& caps, Executor* executor)
    : Plan(bounds, Select(bounds, caps), executor) {}
Plan::~Plan() = default;
Plan::Plan(Plan&&) noexcept = default;
Plan& Plan::operator=(Plan&&) noexcept = default;

const Problem& Plan::problem() const noexcept { return impl_->problem; }
const Selection& Plan::selection() const noexcept { return impl_->selection; }
const PlanShape& Plan::shape() const noexcept { return impl_->kernel.shape; }
std::size_t Plan::workspace_bytes() const noexcept { return impl_->total_bytes; }
Executor& Plan::executor() const noexcept { return *impl_->executor; }

void Launch(const Plan& plan, const AttentionArgs& args, Workspace workspace, Stream stream) {
  Run(plan, args, nullptr, workspace, stream, true);
}
void LaunchUnchecked(const Plan& plan, const AttentionArgs& args, Workspace workspace, Stream stream) {
  Run(plan, args, nullptr, workspace, stream, false);
}
void LaunchBackward(const Plan& plan, const BackwardArgs& args, Workspace workspace, Stream stream) {
  Run(plan, args.forward, &args, workspace, stream, true);
}
void LaunchBackwardUnchecked(const Plan& plan, const BackwardArgs& args, Workspace workspace, Stream stream) {
  Run(plan, args.forward, &args, workspace, stream, false);
}

void CheckDevice(Device device, Stream stream) {
  if (device.type == DeviceType::kCuda) cuda::CheckTables(device.index, stream);
}

}  // namespace regard
