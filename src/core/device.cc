// DeviceCaps of this machine, and the names of instruction sets.

#include "regard/device.h"

#include <algorithm>

#include "regard/status.h"
#include "src/core/cpu_detect.h"
#include "src/core/env.h"

namespace regard {
namespace {

// Cautious figures for a machine that nobody has measured: GHz * lanes * 2 flops * pipes of one thread.
double GuessedGflops(Isa isa) {
  constexpr double kGhz = 2.5;
  switch (isa) {
    case Isa::kScalar:
      return kGhz * 4 * 2 * 0.5;  // the compiler's own baseline vectors, multiply and add apart
    case Isa::kNeon:
      return kGhz * 4 * 2 * 2;
    case Isa::kAvx2:
      return kGhz * 8 * 2 * 2;
    case Isa::kAvx512:
    case Isa::kAvx512Bf16:
      return kGhz * 16 * 2 * 1;  // some parts have one 512-bit pipe
  }
  return kGhz;
}

double GuessedReadGbps(int threads) {
  constexpr double kGbpsPerThread = 10, kGbpsOfSocket = 40;
  return std::min(kGbpsPerThread * threads, kGbpsOfSocket);
}

}  // namespace

const char* Name(Isa isa) noexcept {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kNeon:
      return "neon";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "?";
}

bool DeviceCaps::Has(Isa isa) const noexcept { return std::find(isas.begin(), isas.end(), isa) != isas.end(); }

Isa DeviceCaps::Best() const noexcept {
  return isas.empty() ? Isa::kScalar : *std::max_element(isas.begin(), isas.end());
}

std::vector<Isa> UsableIsas(const std::vector<Isa>& detected, const EnvSettings& settings) {
  if (!settings.cpu_isa) return detected;
  const Isa wanted = *settings.cpu_isa;
  if (std::find(detected.begin(), detected.end(), wanted) == detected.end()) {
    std::string available;
    for (const Isa isa : detected) available += (available.empty() ? "" : ", ") + std::string(Name(isa));
    throw Error("REGARD_CPU_ISA", std::string(Name(wanted)) + " is not available on this machine",
                "one of " + available + ", or the variable unset");
  }
  if (wanted == Isa::kScalar) return {Isa::kScalar};
  return {Isa::kScalar, wanted};
}

DeviceCaps DetectHost(const EnvSettings& settings) {
  DeviceCaps caps;
  caps.name = DetectCpuName();
  caps.isas = UsableIsas(DetectIsas(), settings);
  caps.threads = DefaultThreads(settings);
  DetectCaches(&caps);
  caps.read_gbps = GuessedReadGbps(caps.threads);
  caps.fma_gflops = GuessedGflops(caps.Best());
  return caps;
}

const DeviceCaps& DeviceCaps::Host() {
  static const DeviceCaps caps = DetectHost(Env());
  return caps;
}

}  // namespace regard
