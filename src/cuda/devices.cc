// The GPUs of this machine, as the driver describes them. What it does not tell (rates) comes from the product's data
// sheet, or from the clock and the multiprocessors.
#include "src/cuda/devices.h"

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "regard/status.h"
#include "src/cuda/driver/driver_api.h"
#include "src/cuda/driver/nvrtc.h"
#include "src/cuda/known_gpus.h"

namespace regard {
namespace cuda {
namespace {

// f32 operations of a multiprocessor in a clock, and those of its tensor cores on f16 products summed in f32 (CUDA C++
// Programming Guide, arithmetic throughput; architecture papers of Volta to Blackwell). Consumer chips of sm_86, 89 and
// 120 sum in f32 at half the rate of their professional twins: the lower figure stands here.
struct Rates {
  int sm;
  double f32, tensor;
};
constexpr Rates kRates[] = {{70, 128, 1024}, {75, 128, 1024}, {80, 128, 2048},  {86, 256, 512},
                            {89, 256, 512},  {90, 256, 4096}, {100, 256, 8192}, {120, 256, 512}};

Rates RatesOf(int sm) {
  Rates rates = kRates[0];
  for (const Rates& r : kRates) {
    if (r.sm <= sm) rates = r;
  }
  return rates;
}

int Attribute(const DriverApi& api, int attribute, abi::CUdevice device) {
  int value = 0;
  CheckResult(api.device_get_attribute(&value, attribute, device), "cuDeviceGetAttribute");
  return value;
}

DeviceCaps Describe(const DriverApi& api, int index) {
  abi::CUdevice device = 0;
  CheckResult(api.device_get(&device, index), "cuDeviceGet");
  std::array<char, 256> name{};
  CheckResult(api.device_get_name(name.data(), static_cast<int>(name.size()) - 1, device), "cuDeviceGetName");
  std::size_t memory = 0;
  CheckResult(api.device_total_mem(&memory, device), "cuDeviceTotalMem");
  const auto attribute = [&](int which) { return Attribute(api, which, device); };

  DeviceCaps caps;
  caps.type = DeviceType::kCuda;
  caps.name = name.data();
  caps.isas.clear();
  GpuCaps& gpu = caps.gpu.emplace();
  gpu.index = index;
  gpu.sm = 10 * attribute(abi::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
           attribute(abi::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  gpu.multiprocessors = attribute(abi::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  gpu.shared_per_block_bytes = attribute(abi::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  gpu.l2_bytes = attribute(abi::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
  gpu.memory_bytes = static_cast<std::int64_t>(memory);
  // Rates: a known product's, for as many multiprocessors as this one has; else the architecture's at this clock.
  const KnownGpu* known = FindKnown(caps.name);
  if (known && known->sm != gpu.sm) known = nullptr;
  if (known) {
    const double share = static_cast<double>(gpu.multiprocessors) / known->multiprocessors;
    gpu.tensor_f16_tflops = known->tensor_f16_tflops * share;
    gpu.f32_tflops = known->f32_tflops * share;
  } else {
    const Rates rates = RatesOf(gpu.sm);
    const double hz = 1e3 * attribute(abi::CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
    gpu.tensor_f16_tflops = rates.tensor * gpu.multiprocessors * hz / 1e12;
    gpu.f32_tflops = rates.f32 * gpu.multiprocessors * hz / 1e12;
  }
  // Two transfers a clock; variants of a product differ here, so that the data sheet comes second.
  gpu.memory_gbps = 2 * 1e3 * attribute(abi::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE) *
                    (attribute(abi::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH) / 8.0) / 1e9;
  if (gpu.memory_gbps <= 0 && known) gpu.memory_gbps = known->memory_gbps;
  const NvrtcApi& nvrtc = Nvrtc();
  gpu.nvrtc_major = nvrtc.status.ok ? nvrtc.major : 0;
  Status compiler = nvrtc.status;
  if (compiler.ok) compiler = CanCompile(nvrtc, ArchFor(nvrtc, gpu.sm, false));
  gpu.missing = compiler.reason;
  gpu.remedy = compiler.remedy;
  return caps;
}

// Of this machine; empty without a driver.
const std::vector<DeviceCaps>& Devices() {
  static const std::vector<DeviceCaps> devices = [] {
    std::vector<DeviceCaps> found;
    const DriverApi& api = Driver();
    int count = 0;
    if (!api.status.ok || api.device_get_count(&count) != abi::CUDA_SUCCESS) return found;
    for (int index = 0; index < count; ++index) found.push_back(Describe(api, index));
    return found;
  }();
  return devices;
}

}  // namespace

const Status& WhyNoGpu() {
  return Driver().status;
}

}  // namespace cuda

int DeviceCaps::GpuCount() noexcept {
  try {
    return static_cast<int>(cuda::Devices().size());
  } catch (...) {
    return 0;  // a driver that does not answer
  }
}

const DeviceCaps& DeviceCaps::Gpu(int index) {
  const std::vector<DeviceCaps>& devices = cuda::Devices();
  if (index >= 0 && static_cast<std::size_t>(index) < devices.size()) return devices[static_cast<std::size_t>(index)];
  const std::string value = "cuda:" + std::to_string(index);
  if (!devices.empty())
    throw Error("device", value, "0 to " + std::to_string(devices.size() - 1) + ", a GPU of this machine");
  const cuda::Status& why = cuda::WhyNoGpu();
  throw Error("device", value, "a GPU: " + why.reason + (why.remedy.empty() ? "" : " (" + why.remedy + ")"));
}

}  // namespace regard
