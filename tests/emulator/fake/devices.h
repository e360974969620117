// The GPUs that the fake driver pretends to have: FAKE_CUDA_GPUS lists products by name ("T4,A100,RTX 4090"), one
// device each; without it there is one A100. Figures are those of the library's own table of known GPUs.
#pragma once

#include <string>
#include <vector>

#include "regard/device.h"

namespace regard::emulator::fake {

const std::vector<DeviceCaps>& Devices();

}  // namespace regard::emulator::fake
