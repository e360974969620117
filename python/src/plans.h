// Plans of this thread's last problems. A model's layers, and steps of one shape, then select and plan once.
#pragma once

#include <memory>
#include <optional>

#include "regard/executor.h"
#include "regard/plan.h"

namespace regard::python {

// This CPU, or a GPU of this machine. Throws Error{"device"} for one that is not there.
const DeviceCaps& CapsOf(Device device);

// The plan for exactly this problem on this device. With a choice it is made anew. Throws what Select and Plan throw.
std::shared_ptr<const Plan> PlanFor(const Problem& p, Device device, const std::optional<KernelChoice>& choice,
                                    Executor& executor);

}  // namespace regard::python
