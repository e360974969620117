#include "tests/cuda/fakes/fake_driver.h"

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#ifndef FAKE_VERSION
#define FAKE_VERSION 13000
#endif
#ifndef FAKE_DEVICES
#define FAKE_DEVICES 2
#endif

namespace {

struct Context {
  int device = 0, number = 0;
};
struct Module {
  std::string text;
};

constexpr int kContextsOfDevice = 4;
constexpr int kInvalidValue = 1, kNoDevice = 100, kInvalidDevice = 101;

FakeDriverState state;
std::array<Context, 2 * kContextsOfDevice> contexts;
std::map<unsigned long long, std::size_t> allocations;

[[maybe_unused]] Context* ContextOf(int device, int number) {
  Context& c = contexts[static_cast<std::size_t>(device * kContextsOfDevice + number)];
  c = {device, number};
  return &c;
}

[[maybe_unused]] int Called(const char* name) {
  state.calls.emplace_back(name);
  return 0;
}
#define CALLED() Called(__func__)

[[maybe_unused]] int Allocate(unsigned long long* pointer, std::size_t bytes) {
  if (state.fail_alloc != 0) return state.fail_alloc;
  *pointer = reinterpret_cast<unsigned long long>(std::calloc(1, bytes));
  allocations[*pointer] = bytes;
  state.allocated_bytes += static_cast<long>(bytes);
  return 0;
}

[[maybe_unused]] int Free(unsigned long long pointer) {
  const auto at = allocations.find(pointer);
  if (at == allocations.end()) return kInvalidValue;
  state.allocated_bytes -= static_cast<long>(at->second);
  allocations.erase(at);
  std::free(reinterpret_cast<void*>(pointer));
  return 0;
}

[[maybe_unused]] void* Host(unsigned long long pointer) { return reinterpret_cast<void*>(pointer); }

}  // namespace

extern "C" {

FakeDriverState* fake_driver_state() { return &state; }
void* fake_context(int device, int number) { return ContextOf(device, number); }

int cuDriverGetVersion(int* version) {
  *version = FAKE_VERSION;
  return 0;
}
#ifndef FAKE_ONLY_VERSION
int cuInit(unsigned) { return FAKE_DEVICES == 0 ? kNoDevice : CALLED(); }
int cuGetErrorName(int error, const char** text) {
  static std::string name;
  name = "CUDA_ERROR_" + std::to_string(error);
  *text = error == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : name.c_str();
  return 0;
}
int cuGetErrorString(int, const char** text) {
  *text = "as planned";
  return 0;
}
int cuDeviceGetCount(int* count) {
  *count = FAKE_DEVICES;
  return 0;
}
int cuDeviceGet(int* device, int ordinal) {
  if (ordinal < 0 || ordinal >= FAKE_DEVICES) return kInvalidDevice;
  *device = ordinal;
  return 0;
}
int cuDeviceGetName(char* name, int length, int device) {
  std::snprintf(name, static_cast<std::size_t>(length), "Fake GPU %d", device);
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 7 * device : 1;
  return 0;
}
int cuDeviceTotalMem_v2(std::size_t* bytes, int) {
  *bytes = std::size_t{1} << 34;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  ++state.retained;
  *context = ContextOf(device, 0);
  return CALLED();
}
int cuCtxGetCurrent(void** context) {
  *context = state.context_stack.empty() ? nullptr : state.context_stack.back();
  return 0;
}
int cuCtxPushCurrent_v2(void* context) {
  state.context_stack.push_back(context);
  return CALLED();
}
int cuCtxPopCurrent_v2(void** context) {
  if (state.context_stack.empty()) return kInvalidValue;
  *context = state.context_stack.back();
  state.context_stack.pop_back();
  return CALLED();
}
int cuCtxGetDevice(int* device) {
  if (state.context_stack.empty()) return kInvalidValue;
  *device = static_cast<Context*>(state.context_stack.back())->device;
  return 0;
}
int cuCtxGetId(void* context, unsigned long long* id) {
  const auto* c = static_cast<Context*>(context);
  *id = 1 + static_cast<unsigned long long>(c->device * kContextsOfDevice + c->number);
  return 0;
}
int cuCtxSynchronize() { return CALLED(); }
int cuModuleLoadData(void** module, const void* image) {
  CALLED();
  if (state.fail_load != 0) return state.fail_load;
  ++state.modules_loaded;
  *module = new Module{static_cast<const char*>(image)};
  return 0;
}
int cuModuleUnload(void* module) {
  ++state.modules_unloaded;
  delete static_cast<Module*>(module);
  return CALLED();
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  *function = module;
  return std::strcmp(name, "regard_kernel") == 0 ? CALLED() : 500;
}
int cuFuncGetAttribute(int* value, int, void*) {
  *value = state.max_threads;
  return CALLED();
}
int cuFuncSetAttribute(void*, int, int value) {
  state.shared_opt_in = value;
  return CALLED();
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared_bytes, void* stream, void** parameters, void**) {
  CALLED();
  if (state.fail_launch != 0) return state.fail_launch;
  FakeLaunch launch{static_cast<Module*>(function)->text, {gx, gy, gz}, {bx, by, bz}, shared_bytes, stream, nullptr, 0};
  launch.context = state.context_stack.empty() ? nullptr : state.context_stack.back();
  std::memcpy(&launch.parameter, parameters[0], sizeof(int));
  state.launches.push_back(launch);
  return 0;
}
int cuStreamCreate(void** stream, unsigned) {
  *stream = std::malloc(1);
  return CALLED();
}
int cuStreamDestroy_v2(void* stream) {
  std::free(stream);
  return CALLED();
}
int cuStreamSynchronize(void*) { return CALLED(); }
int cuEventCreate(void** event, unsigned) {
  *event = std::malloc(1);
  return CALLED();
}
int cuEventDestroy_v2(void* event) {
  std::free(event);
  return CALLED();
}
int cuEventRecord(void*, void*) { return CALLED(); }
int cuEventSynchronize(void*) { return CALLED(); }
int cuEventElapsedTime(float* milliseconds, void*, void*) {
  *milliseconds = 2.5f;
  return CALLED();
}
int cuMemAlloc_v2(unsigned long long* pointer, std::size_t bytes) {
  CALLED();
  return Allocate(pointer, bytes);
}
int cuMemFree_v2(unsigned long long pointer) {
  CALLED();
  return Free(pointer);
}
int cuMemGetInfo_v2(std::size_t* free_bytes, std::size_t* total_bytes) {
  *free_bytes = 1000;
  *total_bytes = 2000;
  return 0;
}
int cuMemHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  *pointer = std::calloc(1, bytes);
  return CALLED();
}
int cuMemHostGetDevicePointer_v2(unsigned long long* pointer, void* host, unsigned) {
  *pointer = reinterpret_cast<unsigned long long>(host);
  return CALLED();
}
int cuMemFreeHost(void* pointer) {
  std::free(pointer);
  return CALLED();
}
int cuMemcpyHtoD_v2(unsigned long long to, const void* from, std::size_t bytes) {
  std::memcpy(Host(to), from, bytes);
  return CALLED();
}
int cuMemcpyDtoH_v2(void* to, unsigned long long from, std::size_t bytes) {
  std::memcpy(to, Host(from), bytes);
  return CALLED();
}
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, std::size_t bytes, void*) {
  std::memcpy(Host(to), from, bytes);
  return CALLED();
}
int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, std::size_t bytes, void*) {
  std::memcpy(Host(to), Host(from), bytes);
  return CALLED();
}
int cuMemsetD8Async(unsigned long long to, unsigned char value, std::size_t bytes, void*) {
  std::memset(Host(to), value, bytes);
  return CALLED();
}
int cuPointerGetAttribute(void* value, int attribute, unsigned long long pointer) {
  const auto at = allocations.upper_bound(pointer);
  if (at == allocations.begin() || pointer >= std::prev(at)->first + std::prev(at)->second) return kInvalidValue;
  *static_cast<int*>(value) = attribute == 2 ? 2 : 0;
  return 0;
}
#endif  // FAKE_ONLY_VERSION

}  // extern "C"
