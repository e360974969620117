// Runs the library's CUDA kernels on the host, compiled by the host compiler against the ptx/ headers beside this file.
// A thread of a block is a fiber; the lanes of a warp meet at every collective, which the last one to arrive executes
// for all. Blocks run one after another on each of `host_threads`. Everything is deterministic; a seed shuffles the
// order in which warps run. The launch stops at the first finding (report.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tests/emulator/bank_counter.h"
#include "tests/emulator/report.h"

namespace regard::emulator {

struct LaunchShape {
  std::string kernel;  // named in findings
  int grid[3] = {1, 1, 1};
  int threads = 32;                // of a block: a multiple of 32, at most 1024
  std::uint32_t shared_bytes = 0;  // of a block, at most 227 KiB
  int arch = 80;                   // the chip: 75, 80, 86, 89, 90, ...
};

struct LaunchOptions {
  std::uint64_t seed = 0;  // 0: warps run in order
  int host_threads = 1;
  bool count_banks = false;
};

struct LaunchStats {
  std::int64_t blocks = 0, switches = 0, collectives = 0, products = 0;  // products: mma instructions of warps
  BankCounts banks;                                                      // only with count_banks
  BankCount AllBanks() const {
    BankCount all;
    for (const auto& [line, count] : banks) all.Add(count);
    return all;
  }
  void Add(const LaunchStats& other);
};

struct LaunchResult {
  std::optional<EmulatorReport> report;  // a finding; the rest of the grid did not run
  LaunchStats stats;
};

// Calls kernel(params) in every thread of the grid. Throws regard::Error where the shape is none that a chip takes.
LaunchResult Launch(const LaunchShape& shape, void (*kernel)(const void* params), const void* params,
                    const LaunchOptions& options = {});

}  // namespace regard::emulator
