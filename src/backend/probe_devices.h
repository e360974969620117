// Devices that kernels are asked about, to learn what they can do at all.
#pragma once

#include <vector>

#include "regard/device.h"

namespace regard {

// A CPU with every instruction set, and a pretended GPU of each generation that has kernels of its own.
std::vector<DeviceCaps> ProbeDevices();
// This machine's CPU and its GPUs.
std::vector<DeviceCaps> DevicesHere();

}  // namespace regard
