#include "src/cuda/driver/module_cache.h"

#include <chrono>
#include <utility>

#include "regard/status.h"

namespace regard::cuda {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);  // with another process that compiles the same kernel

}  // namespace

const char* Name(CubinOrigin origin) {
  switch (origin) {
    case CubinOrigin::kMemory: return "memory";
    case CubinOrigin::kDisk: return "disk";
    case CubinOrigin::kCompiled: return "compiled";
  }
  return "";
}

CacheKey KeyOf(const KernelInstance& instance, const Arch& arch, const NvrtcApi& nvrtc, const EmbeddedSet& sources) {
  CacheKey key;
  key.text = "instance " + instance.name + "\narch " + arch.Name() + "\nnvrtc " + nvrtc.VersionText() + "\noptions";
  for (const std::string& option : CompileOptions(arch)) key.text += " " + option;
  key.text += "\nsources " + std::string(sources.hash) + "\n" + instance.text;
  return key;
}

ModuleCache& ModuleCache::OfProcess() {
  // Never destroyed: threads may still plan while the process ends.
  static auto& cache = *new ModuleCache(Nvrtc(), DiskCache::OfProcess());
  return cache;
}

CubinResult ModuleCache::Get(const KernelInstance& instance, const Arch& arch) {
  const auto begin = std::chrono::steady_clock::now();
  if (!nvrtc_.status.ok) throw Error("cuda", nvrtc_.status.reason, nvrtc_.status.remedy);
  const CacheKey key = KeyOf(instance, arch, nvrtc_, sources_);
  std::shared_ptr<Slot> slot;
  {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Slot>& found = slots_[key.text];
    if (!found) found = std::make_shared<Slot>();
    slot = found;
  }
  const std::lock_guard lock(slot->mutex);
  CubinResult result;
  if (!slot->cubin) {
    std::optional<std::string> cubin = disk_.Find(key);
    std::optional<DiskCache::Turn> turn;
    if (!cubin) {
      // Processes that start together compile each kernel once: the others find it when it is done.
      turn.emplace(disk_.TakeTurn(key, kPatience));
      cubin = disk_.Find(key);
    }
    if (cubin) {
      slot->cubin = std::make_shared<const std::string>(*std::move(cubin));
      result.origin = CubinOrigin::kDisk;
    } else {
      Compiled compiled = Compile(instance, arch, nvrtc_, sources_.files);
      // Only machine code is worth keeping: an emulated compiler returns something else.
      if (compiled.cubin.starts_with("\x7f" "ELF")) disk_.Store(key, compiled.cubin);
      slot->cubin = std::make_shared<const std::string>(std::move(compiled.cubin));
      result.origin = CubinOrigin::kCompiled;
    }
  }
  result.cubin = slot->cubin;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

}  // namespace regard::cuda
