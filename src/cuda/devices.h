// The GPUs of this machine (DeviceCaps::Gpu), and why there is none.
#pragma once

#include "src/cuda/driver/status.h"

namespace regard::cuda {

// ok where the driver has found a GPU. The first call loads and starts the driver.
const Status& WhyNoGpu();

}  // namespace regard::cuda
