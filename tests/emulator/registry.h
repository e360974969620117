// Kernels compiled for the host, by the names of their instances (src/cuda/instances.h). Each registers itself when the
// library that holds it is loaded: see base/kernel.h.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace regard::emulator {

struct EmulatedKernel {
  const char* name;  // of the instance
  int threads;       // of a block
  std::size_t parameter_bytes;
  void (*run)(const void* params);  // by every thread
};

// Null: no kernel of that name.
const EmulatedKernel* FindKernel(std::string_view name);
std::vector<const EmulatedKernel*> AllKernels();  // by name

struct Registration {
  explicit Registration(const EmulatedKernel& kernel);
};

}  // namespace regard::emulator
