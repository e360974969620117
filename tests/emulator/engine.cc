// Blocks of a launch, shared out among host threads; the calls of the ptx headers go to the block of their host thread.
#include "tests/emulator/engine.h"

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "regard/status.h"
#include "tests/emulator/block.h"
#include "tests/emulator/crash.h"
#include "tests/emulator/device_memory.h"

namespace regard::emulator {
namespace {

constexpr std::uint32_t kMostShared = 227 << 10;

void CheckShape(const LaunchShape& shape) {
  for (const int extent : shape.grid) {
    if (extent < 1) throw Error("grid", std::to_string(extent), "at least 1");
  }
  if (shape.threads < 32 || shape.threads > 1024 || shape.threads % 32 != 0) {
    throw Error("threads", std::to_string(shape.threads), "a multiple of 32 up to 1024");
  }
  if (shape.shared_bytes > kMostShared) {
    throw Error("shared_bytes", std::to_string(shape.shared_bytes), "at most " + std::to_string(kMostShared));
  }
}

}  // namespace

void LaunchStats::Add(const LaunchStats& other) {
  blocks += other.blocks;
  switches += other.switches;
  collectives += other.collectives;
  products += other.products;
  for (const auto& [site, count] : other.banks) banks[site].Add(count);
}

LaunchResult Launch(const LaunchShape& shape, void (*kernel)(const void*), const void* params,
                    const LaunchOptions& options) {
  CheckShape(shape);
  SayWhereKernelsCrash();
  LaunchResult result;
  std::mutex mutex;  // of result
  const auto blocks = static_cast<std::int64_t>(shape.grid[0]) * shape.grid[1] * shape.grid[2];
  std::atomic<std::int64_t> next{0};
  std::atomic<bool> failed{false};
  const auto work = [&] {
    Block block(shape, kernel, params, options);
    for (std::int64_t n; !failed && (n = next++) < blocks;) {
      const auto x = static_cast<int>(n % shape.grid[0]);
      const auto y = static_cast<int>(n / shape.grid[0] % shape.grid[1]);
      const auto z = static_cast<int>(n / shape.grid[0] / shape.grid[1]);
      if (auto report = block.Run(x, y, z)) {
        failed = true;
        const std::lock_guard lock(mutex);
        if (!result.report) result.report = std::move(report);
      }
    }
    const std::lock_guard lock(mutex);
    result.stats.Add(block.stats());
  };
  std::vector<std::thread> others;
  for (int t = 1; t < options.host_threads && t < blocks; ++t) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  return result;
}

// What the ptx headers call.

void Meet(Collective kind, Site site, std::uint32_t uniform, void* lane) {
  current_block->Meet(kind, site, uniform, lane);
}
bool MeetBlock(bool any, bool x, Site site) {
  return current_block->MeetBlock(any, x, site);
}

std::byte* GlobalWrite(void* address, std::uint32_t bytes, Site site) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  const DeviceMemory& memory = DeviceMemory::Get();
  std::byte* found = memory.Find(at, bytes);
  if (!found) {
    bool released = false;
    std::string what = memory.Explain(at, bytes, released);
    current_block->Fail(released ? Finding::kFreedMemory : Finding::kGlobalBounds, site, std::move(what));
  }
  if ((at & (bytes - 1)) != 0) {
    bool released = false;
    current_block->Fail(Finding::kMisaligned, site, memory.Explain(at, bytes, released));
  }
  return found;
}
const std::byte* GlobalRead(const void* address, std::uint32_t bytes, Site site) {
  return GlobalWrite(const_cast<void*>(address), bytes, site);
}
void CopyBegin(std::int64_t offset, const void* from, Site site) {
  current_block->CopyBegin(offset, from, site);
}
void CopyCommit() {
  current_block->CopyCommit();
}
void CopyWait(int pending) {
  current_block->CopyWait(pending);
}

void Require(int arch, const char* instruction, Site site) {
  if (position.arch >= arch) return;
  current_block->Fail(Finding::kUnknownInstruction, site,
                      std::string(instruction) + " needs sm_" + std::to_string(arch) + ", the chip is sm_" +
                          std::to_string(position.arch));
}

}  // namespace regard::emulator
