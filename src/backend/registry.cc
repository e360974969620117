// Every kernel table, in order of preference, and the words that verdicts are made of.
#include <string_view>
#include <vector>

#include "src/backend/kernel_info.h"

namespace regard {

Verdict::Words Verdict::Said(const DeviceCaps& caps) const {
  struct Text {
    std::string operator()(std::string_view word) const { return std::string(word); }
    std::string operator()(std::int64_t number) const { return std::to_string(number); }
    std::string operator()(double number) const { return std::to_string(number); }
  };
  if (accepted) return {};
  if (words) return words(caps);
  return {std::string(field) + " " + std::visit(Text{}, value) + ", needs " + std::string(needs),
          std::string(remedy) += remedy_end};
}

std::span<const KernelInfo* const> AllKernels() {
  static const std::vector<const KernelInfo*> all = [] {
    std::vector<const KernelInfo*> rows;
    for (const KernelInfo& row : CudaKernels()) rows.push_back(&row);
    for (const KernelInfo& row : CpuKernels()) rows.push_back(&row);
    for (const KernelInfo& row : ReferenceKernels()) rows.push_back(&row);
    return rows;
  }();
  return all;
}

const KernelInfo* FindKernel(std::string_view name) {
  for (const KernelInfo* k : AllKernels()) {
    if (name == k->name) return k;
  }
  return nullptr;
}

}  // namespace regard
