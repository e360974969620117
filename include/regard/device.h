// What the selection knows of a device. A plain value, so that tests can fake one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "regard/export.h"
#include "regard/tensor.h"

namespace regard {

// Instruction sets of the CPU kernels, worst first.
enum class Isa : std::uint8_t { kScalar, kNeon, kAvx2, kAvx512, kAvx512Bf16 };
// "scalar" "neon" "avx2" "avx512" "avx512_bf16".
REGARD_API const char* Name(Isa isa) noexcept;
// avx2: AVX2 + FMA + F16C. avx512: F, BW, DQ, VL beside avx2. avx512_bf16: AVX512-BF16 and VBMI beside avx512.

// A GPU that CUDA kernels run on, or one that is pretended.
struct GpuCaps {
  std::optional<int> index;                // of the CUDA driver; absent: a pretended GPU, on which nothing can run
  int sm = 80;                             // compute capability: 80 is 8.0
  int multiprocessors = 1;
  std::int64_t shared_per_block_bytes = 48 << 10;  // at most, by opt-in
  std::int64_t l2_bytes = 4 << 20;
  std::int64_t memory_bytes = std::int64_t{8} << 30;
  double memory_gbps = 300;                // peak
  double tensor_f16_tflops = 50;           // peak, dense f16 products summed in f32
  double f32_tflops = 10;                  // peak, without tensor cores
  int nvrtc_major = 0;                     // of the compiler at hand; 0: unknown
  std::string missing, remedy;             // why no kernel can be compiled here, and the way out; empty: they can
};

struct REGARD_API DeviceCaps {
  DeviceType type = DeviceType::kCpu;
  std::string name = "generic CPU";
  std::vector<Isa> isas = {Isa::kScalar};  // usable, worst first; REGARD_CPU_ISA cuts the list
  int threads = 1;
  std::int64_t l1_bytes = 32 << 10;        // data cache of one core
  std::int64_t l2_bytes = 1 << 20;         // of one core
  std::int64_t l3_bytes = 32 << 20;        // shared
  double read_gbps = 20;                   // all threads; measured or a cautious guess
  double fma_gflops = 50;                  // f32, one thread, best ISA in isas
  bool measured = false;                   // the two figures above come from a probe on this machine
  bool Has(Isa isa) const noexcept;
  Isa Best() const noexcept;

  // Set exactly where type is kCuda; the figures of a CPU above then say nothing.
  std::optional<GpuCaps> gpu;

  // This machine: detected once; REGARD_CPU_ISA and REGARD_THREADS honoured.
  static const DeviceCaps& Host();
  // A GPU of this machine, by the driver's index: detected once. Throws Error{"device"} where there is none.
  static const DeviceCaps& Gpu(int index = 0);
  // How many there are: 0 without a driver. The first call loads and starts the driver.
  static int GpuCount() noexcept;
  // A GPU by its product name, pretended with its vendor's figures: "T4", "a100", "rtx 4090". Throws Error{"device"}
  // for an unknown name, with the known ones.
  static DeviceCaps Known(std::string_view name);
  static std::vector<std::string> KnownNames();
};

}  // namespace regard
