// A floor under the time of a forward kernel on a GPU: what its instructions and bytes take at the chip's peak rates, unit
// by unit, none waiting for another. It is a model of the kernel's own tiles (padding and masked parts of tiles counted),
// for chips that nobody has measured; docs/gpu.md states it in full. The slowest unit is the floor.
#pragma once

#include <vector>

#include "regard/plan.h"

namespace regard::cuda {

struct FloorTerm {
  const char* unit;  // "tensor cores", "shared memory", "exp2", "f32", "memory"
  double seconds;
};

// Empty for a CPU, for a backward problem, and where the model does not know the chosen kernel. Lengths are those of the
// problem's lists, else the longest.
std::vector<FloorTerm> FloorOf(const Problem& p, const DeviceCaps& caps, const Selection& selection);

}  // namespace regard::cuda
