// One forward pass on a GPU: append, prefill or decode, combine. A plan compiles what its launches need; a launch puts
// kernels on a stream, and neither waits, allocates nor reads what lies on the device.
#pragma once

#include "src/backend/kernel_info.h"
#include "src/cuda/instances.h"

namespace regard::cuda {

// A row of the table, whole.
struct CudaRow {
  Generation generation;
  Phase phase;
  const char* type;  // of q: "f32" "f16" "bf16" "f8"
};

// For a GPU of this machine kernels are compiled here; for a pretended one only the shape is worked out.
KernelPlan PlanForward(const CudaRow& row, const Problem& p, const DeviceCaps& caps);
void LaunchForward(const LaunchContext& ctx);

}  // namespace regard::cuda
