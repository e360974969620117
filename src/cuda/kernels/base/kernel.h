// The entry point of an instance: REGARD_KERNEL(threads, blocks a multiprocessor, parameter struct, function). The entry
// is always named regard_kernel. Only NVRTC, nvcc and clang see one: the emulator calls the function itself.
#pragma once

#include "base/types.h"

#if defined(__CUDACC__) || defined(__CUDA__)
#define REGARD_KERNEL(threads, min_blocks, Params, ...)                                                            \
  extern "C" __global__ void __launch_bounds__(threads, min_blocks) regard_kernel(const __grid_constant__ Params p) { \
    __VA_ARGS__(p);                                                                                                \
  }
#endif
