// Plan and Launch. A launch's workspace: the sequences, the checks' scratch, then the kernel's own, each 64-byte aligned.
#include "regard/plan.h"

#include <algorithm>
#include <string>

#include "regard/attention.h"
#include "regard/status.h"
#include "src/backend/plan_impl.h"

namespace regard {
namespace {

constexpr std::size_t kAlign = 64;
std::size_t RoundUp(std::size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

void Run(const Plan& plan, const AttentionArgs& args, Workspace workspace, bool check) {
  const Plan::Impl& impl = plan.impl();
  if (workspace.bytes < impl.total_bytes || (workspace.data == nullptr && impl.total_bytes > 0)) {
    throw Error("workspace", std::to_string(workspace.data ? workspace.bytes : 0) + " bytes",
                "at least " + std::to_string(impl.total_bytes) + " bytes (Plan::workspace_bytes)");
  }
  auto* base = static_cast<std::byte*>(workspace.data);
  base += (kAlign - reinterpret_cast<std::uintptr_t>(base) % kAlign) % kAlign;
  auto* sequences = reinterpret_cast<Sequence*>(base);
  const auto room = static_cast<std::size_t>(std::max<std::int64_t>(impl.problem.batch, 1));
  std::byte* scratch = base + impl.sequences_bytes;
  ResolveArgs(impl.problem, args, check, {sequences, room}, {scratch, impl.scratch_bytes});
  const auto batch = static_cast<std::size_t>(BatchOf(args));
  impl.selection.chosen->launch({impl.problem, args, {sequences, batch}, impl.kernel, *impl.executor,
                                 {scratch + impl.scratch_bytes, impl.kernel.workspace_bytes}});
}

}  // namespace

Plan::Plan(const Problem& bounds, const Selection& selection, Executor* executor) {
  Validate(bounds);
  if (selection.chosen == nullptr) throw Error("selection", "no kernel chosen", "the result of Select");
  auto impl = std::make_shared<Impl>();
  impl->problem = bounds;
  impl->selection = selection;
  impl->executor = executor ? executor : &DefaultExecutor();
  impl->kernel =
      selection.chosen->plan(*selection.chosen, bounds, DeviceCaps::Host(), impl->executor->threads());
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

void Launch(const Plan& plan, const AttentionArgs& args, Workspace workspace) { Run(plan, args, workspace, true); }
void LaunchUnchecked(const Plan& plan, const AttentionArgs& args, Workspace workspace) {
  Run(plan, args, workspace, false);
}

}  // namespace regard
