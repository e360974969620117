// How many blocks of a kernel a multiprocessor holds at once: what its registers, shared memory, warps and block slots
// admit, by a stated model of each architecture. Figures of the CUDA C++ Programming Guide, "Technical specifications
// per compute capability".
#pragma once

#include <optional>
#include <string>

#include "src/cuda/driver/cubin.h"

namespace regard::cuda {

struct MultiprocessorLimits {
  int sm = 0;
  int warps = 0;
  int blocks = 0;
  int shared_kbytes = 0;           // of a multiprocessor
  int shared_block_kbytes = 0;     // of one block, by opt-in
  int reserved_shared_bytes = 0;   // of each block, kept by the system
};

// The limits of an architecture: its own, else those of the nearest older one of its generation; absent where none is.
std::optional<MultiprocessorLimits> LimitsOf(int sm);

struct Occupancy {
  int blocks = 0;             // resident on a multiprocessor; 0: the kernel cannot run
  int warps = 0;              // of all of them
  double fraction = 0;        // of the warps that a multiprocessor can hold
  std::string limited_by;     // "registers", "shared memory", "warps" or "blocks"
};

Occupancy OccupancyOf(const MultiprocessorLimits& limits, int registers, unsigned shared_bytes, int threads);

}  // namespace regard::cuda
