// Kernels that may spill registers to memory, each with its reason. Any other that does fails `regard cuda compile`.
#pragma once

#include <fnmatch.h>

#include <span>
#include <string>

namespace regard::cli {

struct KnownSpill {
  const char* pattern;  // of the kernel's name, as for a shell
  int sm;               // architecture; 0: all
  unsigned bytes;       // at most, stores and loads together
  const char* reason;
};

inline std::span<const KnownSpill> KnownSpills() {
  // Two tiles of 16 rows a warp: their sums are 128 registers and their scores 64, so that a few of the 255 overflow at the
  // edges of the loop. One tile a warp spills nothing and reads each key from shared memory twice as often, which the model
  // of src/cuda/floor.cc puts at 1.25 times the time on an A100.
  static constexpr KnownSpill kKnown[] = {
      {"sm80.prefill.*.d128.dv128.warps4.tiles2.stages1", 0, 512, "two tiles of sums a warp; one would double reads of shared memory"},
      // The same at 64 dims, where only NVRTC 13.5's code for sm_120 overflows.
      {"sm80.prefill.*.d64.dv64.warps4.tiles2.stages2*", 120, 640,
       "two tiles of sums a warp; one would double reads of shared memory"},
  };
  return kKnown;
}

// Why a kernel may spill so many bytes; "" where nothing is listed, or nothing is spilled.
inline std::string SpillReason(std::span<const KnownSpill> known, const std::string& kernel, int sm, unsigned bytes) {
  for (const KnownSpill& spill : known) {
    const bool matches = (spill.sm == 0 || spill.sm == sm) && fnmatch(spill.pattern, kernel.c_str(), 0) == 0;
    if (matches && bytes > 0 && bytes <= spill.bytes) return spill.reason;
  }
  return {};
}

}  // namespace regard::cli
