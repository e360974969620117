#include "cli/kernel_match.h"

#include <string_view>

#include "regard/status.h"
#include "src/core/suggest.h"

namespace regard::cli {

std::vector<const KernelInfo*> KernelsMatching(const std::string& pattern) {
  std::vector<const KernelInfo*> matching;
  std::vector<std::string_view> names;
  for (const KernelInfo* kernel : AllKernels()) {
    const std::string_view name = kernel->name;
    names.push_back(name);
    const bool prefix = name.starts_with(pattern) && (name.size() == pattern.size() || name[pattern.size()] == '.');
    if (pattern.empty() || prefix) matching.push_back(kernel);
  }
  if (matching.empty()) {
    const std::string nearest = Nearest(pattern, names);
    throw Error("--kernel", pattern, "a kernel's name or a dotted prefix of one, as `regard list` shows them" +
                                         (nearest.empty() ? "" : "; the nearest is " + nearest));
  }
  return matching;
}

void AddBackend(CLI::App& command, std::string& backend) {
  command
      .add_option("--backend", backend,
                  "Only kernels of this backend: cpu, cuda (copies the case to the first GPU and back), reference")
      ->type_name("NAME");
}

std::string PatternOf(const std::string& kernel, const std::string& backend) {
  if (!backend.empty() && backend != "cpu" && backend != "cuda" && backend != "reference") {
    throw Error("--backend", backend, "cpu, cuda or reference");
  }
  if (!backend.empty() && !kernel.empty()) throw Error("--backend", backend, "one of --backend and --kernel");
  if (!kernel.empty()) KernelsMatching(kernel);  // an unknown name is an error that suggests one
  return kernel.empty() ? backend : kernel;
}

}  // namespace regard::cli
