// Figures of GPUs by product, for pretended devices and for what a driver does not tell.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "regard/device.h"

namespace regard::cuda {

struct KnownGpu {
  const char* name;
  int sm, multiprocessors, l2_mib, memory_gib;
  double memory_gbps, tensor_f16_tflops, f32_tflops;
};

// By the name that a driver gives; null: none of them.
const KnownGpu* FindKnown(std::string_view product);

// Dynamic shared memory that a block may have at most.
std::int64_t SharedBytesPerBlock(int sm);

}  // namespace regard::cuda
