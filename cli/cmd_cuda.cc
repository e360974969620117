// `regard cuda`: the CUDA side without running anything on a GPU: compile, warm, cache.
#include <memory>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/cuda_compile.h"
#include "src/cuda/driver/disk_cache.h"

namespace regard::cli {
namespace {

void Cache(bool clear, bool json) {
  cuda::DiskCache& cache = cuda::DiskCache::OfProcess();
  const cuda::DiskCache::Usage usage = clear ? cache.Clear() : cache.Measure();
  if (json) {
    const nlohmann::ordered_json all = {{"folder", cache.folder()},   {"entries", usage.entries},
                                        {"bytes", usage.bytes},       {"limit_bytes", cache.limit_bytes()},
                                        {"cleared", clear}};
    fmt::print("{}\n", all.dump(2));
    return;
  }
  if (cache.folder().empty()) {
    fmt::print("no cache: neither REGARD_CUDA_CACHE, XDG_CACHE_HOME nor HOME names a folder\n");
    return;
  }
  fmt::print("folder   {}\n", cache.folder());
  fmt::print("{}  {} kernels, {:.1f} MiB\n", clear ? "removed" : "entries", usage.entries,
             static_cast<double>(usage.bytes) / (1 << 20));
  fmt::print("limit    {:.0f} MiB (REGARD_CUDA_CACHE_BYTES)\n", static_cast<double>(cache.limit_bytes()) / (1 << 20));
}

void RegisterCache(CLI::App& cuda) {
  auto* command = cuda.add_subcommand("cache", "The folder of compiled kernels: where it is and what it holds");
  auto clear = std::make_shared<bool>(false), json = std::make_shared<bool>(false);
  command->add_flag("--clear", *clear, "Remove all of them");
  command->add_flag("--json", *json, "As JSON");
  command->callback([clear, json] { Cache(*clear, *json); });
}

}  // namespace

void RegisterCuda(CLI::App& app, int& exit_code) {
  auto* command = app.add_subcommand("cuda", "CUDA kernels: compile them without a GPU, fill the cache, look at it");
  command->require_subcommand(1);
  RegisterCudaCompile(*command, exit_code);
  RegisterCudaWarm(*command);
  RegisterCache(*command);
}

}  // namespace regard::cli
