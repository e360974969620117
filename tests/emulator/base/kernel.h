// Emulated twin of src/cuda/kernels/base/kernel.h: an instance registers itself under the name that its translation
// unit (made by write_instances.cc from the library's own text) defines as REGARD_INSTANCE.
#pragma once

#include "tests/emulator/registry.h"

#define REGARD_KERNEL(threads, min_blocks, Params, ...)                                                            \
  static const ::regard::emulator::Registration registration(                                                     \
      {REGARD_INSTANCE, threads, sizeof(Params),                                                                   \
       [](const void* params) { __VA_ARGS__(*static_cast<const Params*>(params)); }});
