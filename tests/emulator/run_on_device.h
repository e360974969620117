// One call on a pretended GPU, through the library's whole path: Select, Plan, Launch on device tensors, the kernels
// run by the emulator.
#pragma once

#include <string>
#include <vector>

#include "regard/attention.h"

namespace regard::emulator {

struct Outcome {
  std::string kernel;                // the row that ran
  std::string error;                 // what Launch or CheckDevice threw; empty: nothing
  std::vector<std::string> reports;  // findings of the emulator
  // All of it that is wrong, on one line; empty: nothing.
  std::string Wrong() const;
};

// Runs on device `device` of the fake driver, by the kernel that Select chooses, or by the row of that name. The call
// has memory for all that it writes; results are copied back there, of the sequences that are right also where another
// one's tables are not.
Outcome RunOnDevice(const Problem& bounds, const BackwardArgs& call, int device, const std::string& row = {});

// Names the fake driver and the fake NVRTC to the library. Before anything of regard is called.
void UseFakeDriver();

}  // namespace regard::emulator
