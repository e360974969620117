// What the selection knows of a device. A plain value, so that tests can fake one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "regard/export.h"
#include "regard/tensor.h"

namespace regard {

// Instruction sets of the CPU kernels, worst first.
enum class Isa : std::uint8_t { kScalar, kNeon, kAvx2, kAvx512, kAvx512Bf16 };
// "scalar" "neon" "avx2" "avx512" "avx512_bf16".
REGARD_API const char* Name(Isa isa) noexcept;
// avx2: AVX2 + FMA + F16C. avx512: F, BW, DQ, VL beside avx2. avx512_bf16: AVX512-BF16 and VBMI beside avx512.

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

  // This machine: detected once; REGARD_CPU_ISA and REGARD_THREADS honoured.
  static const DeviceCaps& Host();
};

}  // namespace regard
