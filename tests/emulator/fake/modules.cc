// Modules and launches of the fake driver. An image is the text of an instance, as the fake NVRTC gives it: its first
// line names the kernel that runs in its place.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string_view>
#include <utility>

#include "tests/emulator/fake/devices.h"
#include "tests/emulator/fake/state.h"

using namespace regard::cuda::abi;
using namespace regard::emulator::fake;
using regard::emulator::EmulatedKernel;

namespace {

constexpr CUresult kLaunchFailed = 719;
constexpr std::string_view kFirstLine = "// instance ";
constexpr std::string_view kCompiledFor = "// compiled for sm_";  // the last line

const regard::GpuCaps& CurrentGpu() {
  return *Devices()[static_cast<std::size_t>(CurrentContext()->device)].gpu;
}

// Of the compiled text; 0: it does not say.
int ArchOf(std::string_view image) {
  const std::size_t at = image.rfind(kCompiledFor);
  return at == std::string_view::npos ? 0 : std::atoi(image.data() + at + kCompiledFor.size());
}

CUstream last_stream = nullptr;  // of a launch

}  // namespace

namespace regard::emulator::fake {

Record& Launches() {
  static Record record;
  return record;
}

std::vector<std::string> TakeReports() {
  const std::lock_guard lock(Mutex());
  return std::exchange(Launches().reports, {});
}
std::vector<KernelUse> Uses() {
  const std::lock_guard lock(Mutex());
  return Launches().uses;
}
void SetLaunchOptions(const LaunchOptions& options) {
  const std::lock_guard lock(Mutex());
  Launches().options = options;
}
std::vector<std::string> KernelNames() {
  std::vector<std::string> names;
  for (const EmulatedKernel* kernel : AllKernels()) names.emplace_back(kernel->name);
  return names;
}

namespace {

// The shape's faults that a chip would refuse; empty: none.
std::string Fault(const cuda::abi::CUfunc_st& function, const unsigned (&grid)[3], const unsigned (&block)[3],
                  unsigned shared) {
  for (int axis = 0; axis < 3; ++axis) {
    const unsigned most = axis == 0 ? 2147483647u : 65535u;
    if (grid[axis] == 0 || grid[axis] > most) return "a grid of " + std::to_string(grid[axis]) + " blocks on an axis";
  }
  const unsigned threads = static_cast<unsigned>(function.kernel->threads);
  if (block[0] != threads || block[1] != 1 || block[2] != 1) {
    return "blocks of " + std::to_string(block[0]) + " threads, the kernel is for " + std::to_string(threads);
  }
  if (shared > static_cast<unsigned>(function.most_shared)) {
    return std::to_string(shared) + " bytes of shared memory, allowed are " + std::to_string(function.most_shared);
  }
  return {};
}

KernelUse& UseOf(const char* name) {
  for (KernelUse& use : Launches().uses) {
    if (use.name == name) return use;
  }
  return Launches().uses.emplace_back(KernelUse{name, 0, {}});
}

}  // namespace
}  // namespace regard::emulator::fake

extern "C" {

REGARD_FAKE_API CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  const std::lock_guard lock(Mutex());
  if (!CurrentContext()) return CUDA_ERROR_INVALID_CONTEXT;
  const std::string_view text(static_cast<const char*>(image));
  if (!text.starts_with(kFirstLine)) {
    return Refuse(CUDA_ERROR_INVALID_IMAGE, "cuModuleLoadData", "the image does not begin with '// instance NAME'");
  }
  const std::string_view name = text.substr(kFirstLine.size(), text.find('\n') - kFirstLine.size());
  const int arch = ArchOf(text);
  if (arch > CurrentGpu().sm || arch / 10 != CurrentGpu().sm / 10) {
    return Refuse(CUDA_ERROR_NO_BINARY_FOR_GPU, "cuModuleLoadData",
                  std::string(name) + " is compiled for sm_" + std::to_string(arch) + ", the GPU is sm_" +
                      std::to_string(CurrentGpu().sm));
  }
  const EmulatedKernel* kernel = regard::emulator::FindKernel(name);
  if (!kernel) {
    return Refuse(CUDA_ERROR_NOT_FOUND, "cuModuleLoadData",
                  "no emulated kernel is registered as '" + std::string(name) +
                      "': tests/emulator/emulated_cases.cc has no case that needs it");
  }
  *module = new CUmod_st{{kernel}};
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuModuleUnload(CUmodule module) {
  delete module;
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  if (std::strcmp(name, "regard_kernel") != 0) return CUDA_ERROR_NOT_FOUND;
  *function = &module->function;
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuFuncGetAttribute(int* value, int attribute, CUfunction function) {
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = function->kernel->threads;
      break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *value = function->most_shared;
      break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      *value = 255;
      break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
      *value = 0;
      break;
    default:
      return Refuse(CUDA_ERROR_INVALID_VALUE, "cuFuncGetAttribute", "unknown attribute " + std::to_string(attribute));
  }
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value) {
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 ||
      value > CurrentGpu().shared_per_block_bytes) {
    return Refuse(CUDA_ERROR_INVALID_VALUE, "cuFuncSetAttribute",
                  "attribute " + std::to_string(attribute) + " = " + std::to_string(value) +
                      "; dynamic shared memory up to " + std::to_string(CurrentGpu().shared_per_block_bytes));
  }
  function->most_shared = value;
  return CUDA_SUCCESS;
}

REGARD_FAKE_API CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                                        CUstream stream, void** parameters, void** extra) {
  const std::lock_guard lock(Mutex());
  if (!CurrentContext()) return CUDA_ERROR_INVALID_CONTEXT;
  const EmulatedKernel& kernel = *function->kernel;
  if (!parameters || extra) return Refuse(CUDA_ERROR_INVALID_VALUE, "cuLaunchKernel", "parameters as a list, no extra");
  const unsigned grid[3] = {grid_x, grid_y, grid_z}, block[3] = {block_x, block_y, block_z};
  if (const std::string fault = Fault(*function, grid, block, shared_bytes); !fault.empty()) {
    return Refuse(CUDA_ERROR_INVALID_VALUE, "cuLaunchKernel", std::string(kernel.name) + ": " + fault);
  }
  regard::emulator::LaunchShape shape;
  shape.kernel = kernel.name;
  for (int axis = 0; axis < 3; ++axis) shape.grid[axis] = static_cast<int>(grid[axis]);
  shape.threads = kernel.threads;
  shape.shared_bytes = shared_bytes;
  shape.arch = CurrentGpu().sm;
  // The parameters are copied before the call returns, as the driver's are.
  std::vector<std::max_align_t> copy(kernel.parameter_bytes / sizeof(std::max_align_t) + 1);
  std::memcpy(copy.data(), parameters[0], kernel.parameter_bytes);
  const auto result = regard::emulator::Launch(shape, kernel.run, copy.data(), Launches().options);
  last_stream = stream;
  KernelUse& use = UseOf(kernel.name);
  ++use.launches;
  use.stats.Add(result.stats);
  if (!result.report) return CUDA_SUCCESS;
  Launches().reports.push_back(result.report->Text());
  return Refuse(kLaunchFailed, "cuLaunchKernel", result.report->Text());
}

}  // extern "C"

// For tests that have nothing but the library: the stream of the last launch.
extern "C" REGARD_FAKE_API CUstream regard_fake_last_stream() {
  const std::lock_guard lock(Mutex());
  return last_stream;
}

// Everything that regard resolves is here: an entry point that the library learns to call and this one lacks does not
// link.
namespace {
#define REGARD_ENTRY(field, symbol, parameters) reinterpret_cast<void*>(&symbol),
#define REGARD_DECLARE(field, symbol, parameters) extern "C" CUresult symbol parameters;
}  // namespace
REGARD_CUDA_ENTRY_POINTS(REGARD_DECLARE)
REGARD_CUDA_OPTIONAL_ENTRY_POINTS(REGARD_DECLARE)
extern "C" REGARD_FAKE_API void* const regard_fake_entry_points[] = {
    REGARD_CUDA_ENTRY_POINTS(REGARD_ENTRY) REGARD_CUDA_OPTIONAL_ENTRY_POINTS(REGARD_ENTRY)};
