// Devices, contexts, streams and events of the fake driver. Streams do their work at once, in the call that asks for
// it.
#include <chrono>
#include <cstdio>
#include <cstring>

#include "tests/emulator/fake/devices.h"
#include "tests/emulator/fake/state.h"

using namespace regard::cuda::abi;
using namespace regard::emulator::fake;

namespace regard::emulator::fake {
namespace {

using namespace cuda::abi;

thread_local std::vector<CUctx_st*> context_stack;

CUctx_st* Primary(int device) {
  static std::vector<CUctx_st> contexts(Devices().size());
  CUctx_st& context = contexts[static_cast<std::size_t>(device)];
  context.device = device;
  return &context;
}

bool Known(int device) {
  return device >= 0 && static_cast<std::size_t>(device) < Devices().size();
}

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr int kVersion = 13050;
constexpr struct {
  CUresult result;
  const char *name, *words;
} kErrors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "the emulator found a mistake"},
};

}  // namespace

std::mutex& Mutex() {
  static std::mutex mutex;
  return mutex;
}

cuda::abi::CUctx_st* CurrentContext() {
  return context_stack.empty() ? nullptr : context_stack.back();
}

int Refuse(int result, const char* entry, const std::string& why) {
  std::fprintf(stderr, "fake driver: %s: %s\n", entry, why.c_str());
  return result;
}

}  // namespace regard::emulator::fake

extern "C" {

REGARD_FAKE_API CUresult cuInit(unsigned) {
  return Devices().empty() ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuDriverGetVersion(int* version) {
  *version = kVersion;
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuGetErrorName(CUresult error, const char** text) {
  for (const auto& known : kErrors) {
    if (known.result == error) return *text = known.name, CUDA_SUCCESS;
  }
  return *text = nullptr, CUDA_ERROR_INVALID_VALUE;
}
REGARD_FAKE_API CUresult cuGetErrorString(CUresult error, const char** text) {
  for (const auto& known : kErrors) {
    if (known.result == error) return *text = known.words, CUDA_SUCCESS;
  }
  return *text = nullptr, CUDA_ERROR_INVALID_VALUE;
}

REGARD_FAKE_API CUresult cuDeviceGetCount(int* count) {
  *count = static_cast<int>(Devices().size());
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  if (!Known(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  if (!Known(device) || length <= 0) return CUDA_ERROR_INVALID_DEVICE;
  std::snprintf(name, static_cast<std::size_t>(length), "NVIDIA %s (emulated)",
                Devices()[static_cast<std::size_t>(device)].name.c_str());
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuDeviceTotalMem_v2(std::size_t* bytes, CUdevice device) {
  if (!Known(device)) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = static_cast<std::size_t>(Devices()[static_cast<std::size_t>(device)].gpu->memory_bytes);
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
  if (!Known(device)) return CUDA_ERROR_INVALID_DEVICE;
  const regard::GpuCaps& gpu = *Devices()[static_cast<std::size_t>(device)].gpu;
  constexpr int kBusBits = 4096;
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      *value = gpu.sm / 10;
      break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      *value = gpu.sm % 10;
      break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      *value = gpu.multiprocessors;
      break;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
      *value = static_cast<int>(gpu.l2_bytes);
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
      *value = static_cast<int>(gpu.shared_per_block_bytes);
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
      *value = static_cast<int>(gpu.shared_per_block_bytes) + 1024;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:
      *value = 65536;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
      *value = gpu.sm == 75 ? 1024 : 1536;
      break;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
      *value = kBusBits;
      break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:  // kHz; two transfers a clock
      *value = static_cast<int>(gpu.memory_gbps * 1e6 / (2.0 * kBusBits / 8));
      break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
      *value = 1500000;
      break;
    case CU_DEVICE_ATTRIBUTE_INTEGRATED:
      *value = 0;
      break;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
      *value = device + 1;
      break;
    default:
      return Refuse(CUDA_ERROR_INVALID_VALUE, "cuDeviceGetAttribute", "unknown attribute " + std::to_string(attribute));
  }
  return CUDA_SUCCESS;
}

REGARD_FAKE_API CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  if (!Known(device)) return CUDA_ERROR_INVALID_DEVICE;
  *context = Primary(device);
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = CurrentContext();
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuCtxPushCurrent_v2(CUcontext context) {
  if (!context) return CUDA_ERROR_INVALID_CONTEXT;
  context_stack.push_back(context);
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  if (context_stack.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (context) *context = context_stack.back();
  context_stack.pop_back();
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuCtxGetDevice(CUdevice* device) {
  if (!CurrentContext()) return CUDA_ERROR_INVALID_CONTEXT;
  *device = CurrentContext()->device;
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuCtxGetId(CUcontext context, unsigned long long* id) {
  if (!context) return CUDA_ERROR_INVALID_CONTEXT;
  *id = static_cast<unsigned long long>(context->device) + 1;
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuCtxSynchronize() {
  return CurrentContext() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

REGARD_FAKE_API CUresult cuStreamCreate(CUstream* stream, unsigned) {
  if (!CurrentContext()) return CUDA_ERROR_INVALID_CONTEXT;
  *stream = new CUstream_st{CurrentContext()->device};
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuStreamDestroy_v2(CUstream stream) {
  delete stream;
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuStreamSynchronize(CUstream) {
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuEventCreate(CUevent* event, unsigned) {
  *event = new CUevent_st;
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuEventDestroy_v2(CUevent event) {
  delete event;
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuEventRecord(CUevent event, CUstream) {
  event->seconds = Now();
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuEventSynchronize(CUevent) {
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuEventElapsedTime(float* milliseconds, CUevent begin, CUevent end) {
  if (begin->seconds < 0 || end->seconds < 0) return CUDA_ERROR_INVALID_HANDLE;
  *milliseconds = static_cast<float>((end->seconds - begin->seconds) * 1e3);
  return CUDA_SUCCESS;
}

}  // extern "C"
