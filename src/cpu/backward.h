// One backward launch on the CPU: heads in parallel, sums of a group folded in order, gradients written.
#pragma once

#include "src/backend/kernel_info.h"
#include "src/cpu/backward_params.h"

namespace regard::cpu {

struct BackwardConfig {
  const BackwardKernels* kernels;
  Isa isa;
  const char* type;  // of q: "f32" "f16" "bf16"
  bool pairs;        // bf16 pair products
};

KernelPlan PlanBackward(const BackwardConfig& config, const Problem& p, int threads);
void LaunchBackward(const BackwardConfig& config, const LaunchContext& ctx);

}  // namespace regard::cpu
