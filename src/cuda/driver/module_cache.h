// Cubins by instance and architecture: from this process's memory, else from disk, else compiled and stored. Threads
// that ask for the same one wait for a single compile; a compile that fails is tried again by the next who asks.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "src/cuda/driver/disk_cache.h"
#include "src/cuda/driver/instance.h"
#include "src/cuda/driver/nvrtc.h"

namespace regard::cuda {

enum class CubinOrigin { kMemory, kDisk, kCompiled };
const char* Name(CubinOrigin origin);  // "memory", "disk", "compiled"

struct CubinResult {
  std::shared_ptr<const std::string> cubin;
  CubinOrigin origin = CubinOrigin::kMemory;
  double seconds = 0;  // to find or to compile it
};

// What the cubin of an instance depends on, in full.
CacheKey KeyOf(const KernelInstance& instance, const Arch& arch, const NvrtcApi& nvrtc, const EmbeddedSet& sources);

class ModuleCache {
 public:
  // Both outlive the cache.
  ModuleCache(const NvrtcApi& nvrtc, DiskCache& disk, const EmbeddedSet& sources = EmbeddedSources())
      : nvrtc_(nvrtc), disk_(disk), sources_(sources) {}
  static ModuleCache& OfProcess();

  // Throws as Compile does.
  CubinResult Get(const KernelInstance& instance, const Arch& arch);
  const NvrtcApi& nvrtc() const noexcept { return nvrtc_; }
  DiskCache& disk() noexcept { return disk_; }

 private:
  struct Slot {
    std::mutex mutex;                          // held while it is read or compiled
    std::shared_ptr<const std::string> cubin;  // null until then
  };
  const NvrtcApi& nvrtc_;
  DiskCache& disk_;
  EmbeddedSet sources_;
  std::mutex mutex_;  // of the map
  std::map<std::string, std::shared_ptr<Slot>> slots_;  // by the key's text
};

}  // namespace regard::cuda
