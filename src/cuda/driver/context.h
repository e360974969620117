// The context that work on a device belongs to: the caller's current one where it is on that device, as a host program
// expects (PyTorch's is the primary one), else the device's primary context, which is retained once and kept for the
// life of the process.
#pragma once

#include "src/cuda/driver/driver_api.h"

namespace regard::cuda {

// Makes a context current on this thread until destruction.
class ContextScope {
 public:
  // By the driver's index of the device; throws Error{"cuda"} where there is no such device or no driver.
  explicit ContextScope(int device);
  // A context that is known already.
  explicit ContextScope(abi::CUcontext context);
  ~ContextScope();
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

  abi::CUcontext context() const noexcept { return context_; }

 private:
  abi::CUcontext context_ = nullptr;
  bool pushed_ = false;
};

// Distinct for every context that ever was, unlike its address. The context must be alive.
unsigned long long ContextId(abi::CUcontext context);

}  // namespace regard::cuda
