// One launch from Python: the plan, which this thread may have already; scratch memory where the tensors lie; the launch.
#pragma once

#include <memory>
#include <optional>

#include "python/src/arguments.h"
#include "python/src/plans.h"
#include "python/src/tensors.h"
#include "python/src/threads.h"
#include "src/cuda/allocate.h"

namespace regard::python {

// Workspace on a GPU. torch's comes from its caching allocator: given back with the GIL held, right after the launch, it is
// used again only behind this launch, since both are in the order of torch's current stream.
class GpuScratch {
 public:
  GpuScratch(PyObject* like, std::size_t bytes, Holder& holder);
  Workspace get() const { return workspace_; }

 private:
  Workspace workspace_;
  std::optional<NewTensor> tensor_;
  std::optional<cuda::StreamBuffer> buffer_;
};

// launch(plan, workspace, stream), without the GIL. `like` is a tensor of the call, `kernel` what the caller gave or null.
template <class LaunchIt>
void Run(const Problem& p, PyObject* like, PyObject* kernel, Holder& holder, LaunchIt&& launch) {
  const std::optional<KernelChoice> choice = ChoiceOf(kernel);
  Executor& executor = CallerExecutor();
  const Place& place = holder.place();
  if (place.device.type == DeviceType::kCpu) {
    const WithoutGil without;
    const std::shared_ptr<const Plan> plan = PlanFor(p, place.device, choice, executor);
    const std::unique_ptr<std::byte[]> memory(new std::byte[plan->workspace_bytes()]);
    launch(*plan, Workspace{memory.get(), plan->workspace_bytes()}, Stream{});
    return;
  }
  std::shared_ptr<const Plan> plan;
  {
    const WithoutGil without;  // a new plan may compile kernels
    plan = PlanFor(p, place.device, choice, executor);
  }
  const GpuScratch scratch(like, plan->workspace_bytes(), holder);
  const WithoutGil without;
  launch(*plan, scratch.get(), place.stream);
}

}  // namespace regard::python
