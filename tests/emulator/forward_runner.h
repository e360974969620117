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

// Runs on device `device` of the fake driver. `host` has memory for out (and lse); results, appended keys among them,
// are copied back there.
Outcome RunOnDevice(const Problem& bounds, const AttentionArgs& host, int device);

// Names the fake driver and the fake NVRTC to the library. Before anything of regard is called.
void UseFakeDriver();

}  // namespace regard::emulator
