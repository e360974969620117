// Plans of this thread's last problems. A model's layers, and steps of one shape, then select and plan once.
#pragma once

#include <memory>
#include <optional>

#include "regard/executor.h"
#include "regard/plan.h"

namespace regard::python {

// The plan for exactly this problem. With a choice it is made anew. Throws what Select and Plan throw.
std::shared_ptr<const Plan> PlanFor(const Problem& p, const std::optional<KernelChoice>& choice, Executor& executor);

}  // namespace regard::python
