// Kernels ready to launch. GetFunction belongs to planning: it finds or compiles the cubin (module_cache.h), loads it
// into the context and keeps it there. LaunchKernel belongs to launching: it queues the kernel on the caller's stream
// and does nothing else, so it may be captured into a graph.
#pragma once

#include <cstddef>

#include "src/cuda/driver/cuda_abi.h"
#include "src/cuda/driver/instance.h"

namespace regard::cuda {

struct CudaFunction {
  abi::CUfunction handle = nullptr;
  abi::CUcontext context = nullptr;  // that it is loaded into
  int device = 0;
  int threads = 0;                   // of a block
  unsigned shared_bytes = 0;         // dynamic, the most that a launch may ask for
  unsigned parameter_bytes = 0;      // that the kernel takes; 0 where the cubin does not say
};

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

// For the driver's device of this index, in the context of ContextScope(device). The first call for an instance may
// compile for seconds; later ones look it up. The function stays valid as long as its context. Throws as Compile does,
// and Error{"cuda"} where the driver refuses the code.
CudaFunction GetFunction(int device, const KernelInstance& instance);

// Queues one launch; `parameters` is the kernel's one argument, read before the call returns. No allocation, no
// waiting. An empty grid queues nothing. Throws Error{"cuda"}.
void LaunchKernel(const CudaFunction& function, Dim3 grid, Dim3 block, unsigned shared_bytes, abi::CUstream stream,
                  const void* parameters, std::size_t parameter_bytes);

}  // namespace regard::cuda
