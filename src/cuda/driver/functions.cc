#include "src/cuda/driver/functions.h"

#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "regard/status.h"
#include "src/cuda/driver/context.h"
#include "src/cuda/driver/cubin.h"
#include "src/cuda/driver/driver_api.h"
#include "src/cuda/driver/module_cache.h"

namespace regard::cuda {
namespace {

constexpr unsigned kSharedWithoutOptIn = 48 * 1024;

int ComputeCapability(const DriverApi& api, int device) {
  abi::CUdevice handle = 0;
  int major = 0, minor = 0;
  CheckResult(api.device_get(&handle, device), "cuDeviceGet", "the index of a GPU of this machine");
  CheckResult(api.device_get_attribute(&major, abi::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, handle),
              "cuDeviceGetAttribute");
  CheckResult(api.device_get_attribute(&minor, abi::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, handle),
              "cuDeviceGetAttribute");
  return 10 * major + minor;
}

// Loads a cubin into the current context. The module is never unloaded: plans keep functions of it.
CudaFunction Load(const DriverApi& api, abi::CUcontext context, int device, const KernelInstance& instance,
                  const Arch& arch, const std::string& cubin) {
  CudaFunction f;
  f.context = context;
  f.device = device;
  f.threads = instance.threads;
  f.shared_bytes = instance.shared_bytes;
  if (cubin.starts_with("\x7f" "ELF")) f.parameter_bytes = ReadCubin(cubin).parameter_bytes;
  abi::CUmodule module = nullptr;
  const std::string expected = "a driver that loads " + instance.name + " for " + arch.Name();
  CheckResult(api.module_load_data(&module, cubin.data()), "cuModuleLoadData", expected.c_str());
  abi::CUresult result = api.module_get_function(&f.handle, module, kEntryPoint);
  const char* what = "cuModuleGetFunction";
  if (result == abi::CUDA_SUCCESS && instance.shared_bytes > kSharedWithoutOptIn) {
    what = "cuFuncSetAttribute(MAX_DYNAMIC_SHARED_SIZE_BYTES)";
    result = api.func_set_attribute(f.handle, abi::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                    static_cast<int>(instance.shared_bytes));
  }
  int max_threads = 0;  // asking for it makes a driver that loads lazily load the code now, not at the first launch
  if (result == abi::CUDA_SUCCESS) {
    what = "cuFuncGetAttribute(MAX_THREADS_PER_BLOCK)";
    result = api.func_get_attribute(&max_threads, abi::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, f.handle);
  }
  if (result != abi::CUDA_SUCCESS || instance.threads > max_threads) api.module_unload(module);
  CheckResult(result, what, expected.c_str());
  if (instance.threads > max_threads) {
    throw Error("cuda", instance.name + " with blocks of " + std::to_string(instance.threads) + " threads",
                "at most the " + std::to_string(max_threads) + " that its registers admit on this GPU");
  }
  return f;
}

struct Key {
  unsigned long long context;
  std::string name;
  std::string text;
  friend auto operator<=>(const Key&, const Key&) = default;
};

}  // namespace

CudaFunction GetFunction(int device, const KernelInstance& instance) {
  // Never destroyed: threads may still plan and launch while the process ends.
  static auto& mutex = *new std::mutex;
  static auto& loaded = *new std::map<Key, CudaFunction>;
  const DriverApi& api = NeedDriver();
  const ContextScope scope(device);
  const Key key{ContextId(scope.context()), instance.name, instance.text};
  {
    const std::lock_guard lock(mutex);
    if (const auto at = loaded.find(key); at != loaded.end()) return at->second;
  }
  // Compiling holds no lock of this table, so that threads compile different kernels at once (the module cache makes
  // those that ask for the same one wait).
  ModuleCache& cache = ModuleCache::OfProcess();
  const int sm = ComputeCapability(api, device);
  const Arch arch = ArchFor(cache.nvrtc(), sm, instance.arch_specific);
  if (instance.arch_specific && !arch.specific) {
    const std::string version = "NVRTC " + cache.nvrtc().VersionText();
    throw Error("cuda", instance.name + " on sm_" + std::to_string(sm),
                "code for exactly this architecture, which " + version + " does not make");
  }
  const CubinResult cubin = cache.Get(instance, arch);
  const std::lock_guard lock(mutex);
  const auto at = loaded.find(key);
  if (at != loaded.end()) return at->second;
  return loaded.emplace(key, Load(api, scope.context(), device, instance, arch, *cubin.cubin)).first->second;
}

void LaunchKernel(const CudaFunction& f, Dim3 grid, Dim3 block, unsigned shared_bytes, abi::CUstream stream,
                  const void* parameters, std::size_t parameter_bytes) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (f.parameter_bytes != 0 && f.parameter_bytes != parameter_bytes) {
    throw Error("cuda", std::to_string(parameter_bytes) + " bytes of parameters",
                "the " + std::to_string(f.parameter_bytes) + " bytes that the kernel takes");
  }
  const DriverApi& api = NeedDriver();
  const ContextScope scope(f.context);
  void* arguments[] = {const_cast<void*>(parameters)};
  CheckResult(api.launch_kernel(f.handle, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared_bytes, stream,
                                arguments, nullptr),
              "cuLaunchKernel");
}

}  // namespace regard::cuda
