// Gradients on a GPU: delta first, then the kernels of each gradient (src/cuda/kernels/generic/backward.h).
#pragma once

#include "src/backend/kernel_info.h"

namespace regard::cuda {

// For a GPU of this machine kernels are compiled here; for a pretended one only the shape is worked out.
KernelPlan PlanBackward(const regard::Problem& p, const DeviceCaps& caps);
void LaunchBackward(const LaunchContext& ctx);

}  // namespace regard::cuda
