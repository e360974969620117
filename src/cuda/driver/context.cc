#include "src/cuda/driver/context.h"

#include <map>
#include <mutex>

namespace regard::cuda {
namespace {

abi::CUcontext PrimaryContext(const DriverApi& api, abi::CUdevice device) {
  // Never destroyed: threads may still plan and launch while the process ends.
  static auto& mutex = *new std::mutex;
  static auto& retained = *new std::map<abi::CUdevice, abi::CUcontext>;
  const std::lock_guard lock(mutex);
  abi::CUcontext& context = retained[device];
  if (context == nullptr) {
    CheckResult(api.primary_ctx_retain(&context, device), "cuDevicePrimaryCtxRetain",
                "a GPU that takes work: see nvidia-smi for its memory and compute mode");
  }
  return context;
}

// The current context if it is on this device, else null.
abi::CUcontext CurrentContextOn(const DriverApi& api, abi::CUdevice device) {
  abi::CUcontext current = nullptr;
  if (api.ctx_get_current(&current) != abi::CUDA_SUCCESS || current == nullptr) return nullptr;
  abi::CUdevice on = 0;
  if (api.ctx_get_device(&on) != abi::CUDA_SUCCESS || on != device) return nullptr;
  return current;
}

}  // namespace

ContextScope::ContextScope(int device) {
  const DriverApi& api = NeedDriver();
  abi::CUdevice handle = 0;
  CheckResult(api.device_get(&handle, device), "cuDeviceGet", "the index of a GPU of this machine");
  context_ = CurrentContextOn(api, handle);
  if (context_ != nullptr) return;
  context_ = PrimaryContext(api, handle);
  CheckResult(api.ctx_push_current(context_), "cuCtxPushCurrent");
  pushed_ = true;
}

ContextScope::ContextScope(abi::CUcontext context) : context_(context) {
  const DriverApi& api = NeedDriver();
  abi::CUcontext current = nullptr;
  CheckResult(api.ctx_get_current(&current), "cuCtxGetCurrent");
  if (current == context_) return;
  CheckResult(api.ctx_push_current(context_), "cuCtxPushCurrent");
  pushed_ = true;
}

ContextScope::~ContextScope() {
  abi::CUcontext popped = nullptr;
  if (pushed_) Driver().ctx_pop_current(&popped);
}

unsigned long long ContextId(abi::CUcontext context) {
  unsigned long long id = 0;
  CheckResult(NeedDriver().ctx_get_id(context, &id), "cuCtxGetId");
  return id;
}

}  // namespace regard::cuda
