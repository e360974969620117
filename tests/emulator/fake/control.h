// What tests ask of the fake driver beside its driver's entry points. The library is opened by regard through
// REGARD_LIBCUDA and linked by the test: both are the same copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/emulator/engine.h"

namespace regard::emulator::fake {

struct KernelUse {
  std::string name;
  std::int64_t launches = 0;
  LaunchStats stats;
};

#define REGARD_FAKE_API __attribute__((visibility("default")))

// Findings since the last call, as text; each made its launch fail with CUDA_ERROR_LAUNCH_FAILED.
REGARD_FAKE_API std::vector<std::string> TakeReports();
// Launches by kernel, since the process began.
REGARD_FAKE_API std::vector<KernelUse> Uses();
// Of every launch to come.
REGARD_FAKE_API void SetLaunchOptions(const LaunchOptions& options);
// Names of all kernels that the fake driver can run.
REGARD_FAKE_API std::vector<std::string> KernelNames();
// Allocations that are not released, and their bytes.
REGARD_FAKE_API std::size_t LiveAllocations();
REGARD_FAKE_API std::size_t LiveBytes();

}  // namespace regard::emulator::fake
