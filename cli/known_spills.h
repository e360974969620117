// Kernels that may spill registers to memory, each with its reason. Any other that does fails `regard cuda compile`.
#pragma once

#include <span>

namespace regard::cli {

struct KnownSpill {
  const char* pattern;  // of the kernel's name, as for a shell
  int sm;               // architecture; 0: all
  unsigned bytes;       // at most, stores and loads together
  const char* reason;
};

inline std::span<const KnownSpill> KnownSpills() { return {}; }

}  // namespace regard::cli
