// The registered kernels of a program or library.
#include "tests/emulator/registry.h"

#include <map>

namespace regard::emulator {
namespace {

std::map<std::string_view, EmulatedKernel>& Kernels() {
  static std::map<std::string_view, EmulatedKernel> kernels;
  return kernels;
}

}  // namespace

const EmulatedKernel* FindKernel(std::string_view name) {
  const auto at = Kernels().find(name);
  return at == Kernels().end() ? nullptr : &at->second;
}

std::vector<const EmulatedKernel*> AllKernels() {
  std::vector<const EmulatedKernel*> all;
  for (const auto& [name, kernel] : Kernels()) all.push_back(&kernel);
  return all;
}

Registration::Registration(const EmulatedKernel& kernel) {
  Kernels().emplace(kernel.name, kernel);
}

}  // namespace regard::emulator
