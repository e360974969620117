#include "src/cuda/driver/occupancy.h"

#include <algorithm>
#include <array>

namespace regard::cuda {
namespace {

constexpr int kRegisters = 65536;            // of a multiprocessor, 32 bits each, on every architecture below
constexpr int kRegisterGranule = 256;        // registers are handed to a warp in such pieces
constexpr int kWarpGranule = 4;              // a multiprocessor's four parts hold equally many warps
constexpr int kMaxRegistersOfThread = 255;
constexpr int kSharedGranuleBytes = 128;

constexpr std::array<MultiprocessorLimits, 14> kLimits = {{
    // sm, warps, blocks, shared KB, of a block, reserved bytes
    {70, 64, 32, 96, 96, 0},
    {75, 32, 16, 64, 64, 0},
    {80, 64, 32, 164, 163, 1024},
    {86, 48, 16, 100, 99, 1024},
    {87, 48, 16, 164, 163, 1024},
    {88, 48, 24, 100, 99, 1024},
    {89, 48, 24, 100, 99, 1024},
    {90, 64, 32, 228, 227, 1024},
    {100, 64, 32, 228, 227, 1024},
    {103, 64, 32, 228, 227, 1024},
    {107, 64, 32, 228, 227, 1024},
    {110, 48, 24, 228, 227, 1024},
    {120, 48, 24, 100, 99, 1024},
    {121, 48, 24, 100, 99, 1024},
}};

int RoundUp(int value, int granule) { return (value + granule - 1) / granule * granule; }

}  // namespace

std::optional<MultiprocessorLimits> LimitsOf(int sm) {
  std::optional<MultiprocessorLimits> best;
  for (const MultiprocessorLimits& limits : kLimits) {
    if (limits.sm <= sm && limits.sm / 10 == sm / 10) best = limits;
  }
  return best;
}

Occupancy OccupancyOf(const MultiprocessorLimits& limits, int registers, unsigned shared_bytes, int threads) {
  Occupancy occupancy;
  if (threads < 1 || threads > 1024 || registers > kMaxRegistersOfThread) return occupancy;
  const int block_warps = (threads + 31) / 32;
  const int warp_registers = RoundUp(std::max(registers, 1) * 32, kRegisterGranule);
  const int by_registers = kRegisters / warp_registers / kWarpGranule * kWarpGranule / block_warps;
  const auto block_shared =
      RoundUp(static_cast<int>(shared_bytes) + limits.reserved_shared_bytes, kSharedGranuleBytes);
  if (shared_bytes > static_cast<unsigned>(limits.shared_block_kbytes) * 1024u) {
    occupancy.limited_by = "shared memory";
    return occupancy;
  }
  const int by_shared = block_shared == 0 ? limits.blocks : limits.shared_kbytes * 1024 / block_shared;
  const int by_warps = limits.warps / block_warps;
  // Of equal limits the first of this order is named: the one that a kernel's author can change.
  occupancy.blocks = std::min({by_registers, by_shared, by_warps, limits.blocks});
  occupancy.limited_by = occupancy.blocks == by_registers ? "registers"
                         : occupancy.blocks == by_shared  ? "shared memory"
                         : occupancy.blocks == by_warps   ? "warps"
                                                          : "blocks";
  occupancy.warps = occupancy.blocks * block_warps;
  occupancy.fraction = static_cast<double>(occupancy.warps) / limits.warps;
  return occupancy;
}

}  // namespace regard::cuda
