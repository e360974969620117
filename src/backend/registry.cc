// Every kernel table, in order of preference, and the words that verdicts are made of.
#include <string_view>
#include <vector>

#include "src/backend/kernel_info.h"

namespace regard {

Verdict Reject(const char* field, const std::string& value, const std::string& needs) {
  Verdict v;
  v.accepted = false;
  v.reason = std::string(field) + " " + value + ", needs " + needs;
  return v;
}
Verdict Reject(const char* field, std::int64_t value, const std::string& needs) {
  return Reject(field, std::to_string(value), needs);
}

std::span<const KernelInfo* const> AllKernels() {
  static const std::vector<const KernelInfo*> all = [] {
    std::vector<const KernelInfo*> rows;
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
