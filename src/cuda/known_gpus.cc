// GPUs by product name, so that selection can answer for a chip that is not here. Figures are the vendor's, from the
// data sheet or architecture paper of each product (NVIDIA: V100, T4, A100, A10, L4, L40S, H100, H200 and HGX B200 data
// sheets; GA102, AD102 and RTX Blackwell architecture papers; shared memory by architecture: CUDA C++ Programming
// Guide, technical specifications per compute capability). Tensor rates are of dense f16 products summed in f32, at
// boost clock.
#include "src/cuda/known_gpus.h"

#include <algorithm>
#include <cctype>
#include <iterator>

#include "regard/status.h"

namespace regard {
namespace cuda {
namespace {

constexpr KnownGpu kKnown[] = {
    // name, sm, multiprocessors, L2 MiB, memory GiB, GB/s, tensor f16 TFLOP/s, f32 TFLOP/s
    {"V100", 70, 80, 6, 32, 900, 125, 15.7},      {"T4", 75, 40, 4, 16, 320, 65, 8.1},
    {"A100", 80, 108, 40, 80, 2039, 312, 19.5},   {"A10", 86, 72, 6, 24, 600, 125, 31.2},
    {"RTX 3090", 86, 82, 6, 24, 936, 71, 35.6},   {"L4", 89, 58, 48, 24, 300, 121, 30.3},
    {"L40S", 89, 142, 96, 48, 864, 362, 91.6},    {"RTX 4090", 89, 128, 72, 24, 1008, 165, 82.6},
    {"H100", 90, 132, 50, 80, 3350, 989, 67},     {"H200", 90, 132, 50, 141, 4800, 989, 67},
    {"B200", 100, 148, 126, 180, 8000, 2250, 75}, {"RTX 5090", 120, 170, 96, 32, 1792, 209, 104.8},
};

// "rtx4090" of "RTX 4090": letters and digits, in lower case.
std::string Plain(std::string_view name) {
  std::string plain;
  for (const char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0)
      plain += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return plain;
}

}  // namespace

std::int64_t SharedBytesPerBlock(int sm) {
  // By opt-in: what the multiprocessor has, from sm_80 on less 1 KiB that the system keeps.
  std::int64_t kib = 48;
  if (sm == 70 || sm == 72) kib = 96;
  if (sm == 75) kib = 64;
  if (sm == 80 || sm == 87) kib = 163;
  if (sm == 86 || sm == 89 || sm >= 120) kib = 99;
  if (sm >= 90 && sm < 120) kib = 227;
  return kib << 10;
}

const KnownGpu* FindKnown(std::string_view product) {
  // A driver's name has words around it: "NVIDIA A100-SXM4-80GB". Whole words count, of several the longest.
  const KnownGpu* best = nullptr;
  std::string words = " ";
  for (const char c : product) words += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : ' ';
  words += ' ';
  for (const KnownGpu& gpu : kKnown) {
    if (words.find(" " + std::string(gpu.name) + " ") == std::string::npos) continue;
    if (!best || std::string_view(gpu.name).size() > std::string_view(best->name).size()) best = &gpu;
  }
  return best;
}

}  // namespace cuda

DeviceCaps DeviceCaps::Known(std::string_view name) {
  const std::string wanted = cuda::Plain(name);
  const auto matches = [&](const cuda::KnownGpu& gpu) {
    const std::string plain = cuda::Plain(gpu.name);
    return wanted == plain || (plain.starts_with("rtx") && wanted == plain.substr(3));
  };
  const auto found = std::find_if(std::begin(cuda::kKnown), std::end(cuda::kKnown), matches);
  if (found == std::end(cuda::kKnown)) {
    std::string known;
    for (const std::string& one : KnownNames()) known += (known.empty() ? "" : ", ") + one;
    throw Error("device", std::string(name), "one of " + known);
  }
  DeviceCaps caps;
  caps.type = DeviceType::kCuda;
  caps.name = found->name;
  caps.isas.clear();
  GpuCaps& gpu = caps.gpu.emplace();
  gpu.sm = found->sm;
  gpu.multiprocessors = found->multiprocessors;
  gpu.shared_per_block_bytes = cuda::SharedBytesPerBlock(gpu.sm);
  gpu.l2_bytes = std::int64_t{found->l2_mib} << 20;
  gpu.memory_bytes = std::int64_t{found->memory_gib} << 30;
  gpu.memory_gbps = found->memory_gbps;
  gpu.tensor_f16_tflops = found->tensor_f16_tflops;
  gpu.f32_tflops = found->f32_tflops;
  gpu.nvrtc_major = gpu.sm < 75 ? 12 : 13;  // the newest that compiles for the chip
  return caps;
}

std::vector<std::string> DeviceCaps::KnownNames() {
  std::vector<std::string> names;
  for (const cuda::KnownGpu& gpu : cuda::kKnown) names.emplace_back(gpu.name);
  return names;
}

}  // namespace regard
