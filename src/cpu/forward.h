// One forward launch on the CPU, whatever the phase: append, tasks, combine.
#pragma once

#include "src/backend/kernel_info.h"
#include "src/cpu/params.h"

namespace regard::cpu {

// A kernel's configuration, whole: its ISA objects, and whether short sequences run through decode (no bit depends on it).
struct CpuConfig {
  const ForwardKernels* kernels;
  Isa isa;
  Phase phase;
  const char* type;  // of q: "f32" "f16" "bf16" "f8"
  bool pairs;        // bf16 pair products
};

// `numerics`: of the kernel's row. Reads REGARD_TUNE (src/cpu/tune.h).
KernelPlan PlanForward(const CpuConfig& config, const char* numerics, const Problem& p, int threads);
void LaunchForward(const CpuConfig& config, const LaunchContext& ctx);

}  // namespace regard::cpu
