#include "cli/device_options.h"

#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "regard/executor.h"
#include "regard/status.h"
#include "src/cases/buffer.h"
#include "src/cpu/probe/roof.h"

namespace regard::cli {

Isa ParseIsa(const std::string& field, const std::string& name) {
  std::string known;
  for (const Isa isa : kAllIsas) {
    if (name == Name(isa)) return isa;
    known += (known.empty() ? "" : ", ") + std::string(Name(isa));
  }
  throw Error(field, name, "one of " + known);
}

std::vector<Isa> IsasUpTo(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return {Isa::kScalar};
    case Isa::kNeon:
      return {Isa::kScalar, Isa::kNeon};
    case Isa::kAvx2:
      return {Isa::kScalar, Isa::kAvx2};
    case Isa::kAvx512:
      return {Isa::kScalar, Isa::kAvx2, Isa::kAvx512};
    case Isa::kAvx512Bf16:
      return {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};
  }
  return {Isa::kScalar};
}

std::string Bytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  const bool whole = unit == 0 || bytes == static_cast<double>(static_cast<long long>(bytes)) || bytes >= 100;
  return fmt::format("{:.{}f} {}", bytes, whole ? 0 : 1, kUnits[unit]);
}

void MeasureQuickly(DeviceCaps* caps) {
  const std::unique_ptr<Executor> all(MakeExecutor(ExecutorKind::kOpenMp, caps->threads));
  const std::unique_ptr<Executor> one(MakeExecutor(ExecutorKind::kSerial, 1));
  // The probes run real instructions, so they use this machine's best set, whatever `caps` pretends.
  const Isa isa = probe::Runnable(caps->Best());
  const cases::Buffer memory(
      static_cast<std::size_t>(std::clamp<std::int64_t>(caps->l3_bytes * 4, 64 << 20, 512 << 20)));
  std::fill_n(memory.data(), memory.size(), std::byte{1});
  probe::ReadRoof read(*all, isa, {{memory.data(), memory.size()}}, probe::ReadKind::kStreams);
  double best = 0;
  for (int round = 0; round < 3; ++round) best = std::max(best, read.Run());
  caps->read_gbps = best / 1e9;
  double flops = 0;
  for (int round = 0; round < 5; ++round)
    flops = std::max(flops, probe::FlopsRoof(*one, isa, probe::FlopsKind::kFmaF32, 0.004));
  caps->fma_gflops = flops / 1e9;
  caps->measured = true;
}

}  // namespace regard::cli
