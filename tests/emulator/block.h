// One block of threads while it runs: its fibers, the meeting points of its warps, its shared memory. A Block serves
// one host thread and is used for one block after another; it owns stacks, shared memory and shadow.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/emulator/bank_counter.h"
#include "tests/emulator/device.h"
#include "tests/emulator/engine.h"
#include "tests/emulator/fiber.h"
#include "tests/emulator/shared_shadow.h"

namespace regard::emulator {

class Block {
 public:
  Block(const LaunchShape& shape, void (*kernel)(const void*), const void* params, const LaunchOptions& options);
  // Runs block (x, y, z) to its end, or to a finding.
  std::optional<EmulatorReport> Run(int x, int y, int z);
  LaunchStats stats() const;
  const char* kernel_name() const { return shape_.kernel.c_str(); }

  // Calls of the running thread (device.h).
  void Meet(Collective kind, Site site, std::uint32_t uniform, void* lane);
  bool MeetBlock(bool any, bool x, Site site);
  std::byte* Shared(std::int64_t offset, std::uint32_t bytes, bool write, Site site);
  void CopyBegin(std::int64_t offset, const void* from, Site site);
  void CopyCommit();
  void CopyWait(int pending);
  // Ends the block with a finding: throws, up to the begin of the running thread.
  [[noreturn]] void Fail(Finding finding, Site site, std::string what);

 private:
  static constexpr std::uint32_t kAllLanes = 0xffffffff;
  static constexpr int kBlockBarrier = 100, kBlockAny = 101;  // kinds of Arrival beside those of Collective

  // Where a lane waits.
  struct Arrival {
    int kind = 0;
    Site site;
    std::uint32_t uniform = 0;
    void* lane = nullptr;
  };
  // Lanes are in exactly one of four states; the running lane is ready.
  struct Warp {
    std::uint32_t ready = kAllLanes, waiting = 0, at_block = 0, done = 0;
    std::array<Arrival, 32> arrivals;
  };
  struct Copy {
    std::uint32_t offset;
    bool zero;
    std::array<std::byte, 16> data;
  };
  struct Thread {
    Fiber fiber;
    std::vector<std::vector<Copy>> groups;  // under way, oldest first
    std::vector<Copy> open;                 // not yet committed
  };

  static void ThreadMain();
  void Exit();
  void SwitchTo(int thread);
  // The next ready lane of `warp` after `lane`; the first ready thread of another warp; -1: none.
  int NextLane(int warp, int lane) const;
  int NextWarp() const;
  // All lanes of the warp wait at a collective: same place? Then it is executed.
  void Execute(int w);
  void CheckSame(int w);
  void ReleaseBlock();
  void ShuffleOrder();
  std::string Whereabouts(const Warp& warp) const;
  [[noreturn]] void FailDivergent(int w, Site site);
  [[noreturn]] void Report(SharedShadow::Verdict verdict, const SharedShadow::Conflict& conflict, bool write,
                           Site site);
  void CheckShared(std::int64_t offset, std::uint32_t bytes, Site site);
  void LoadMatrices(const Arrival* arrivals, Collective kind);

  const LaunchShape& shape_;
  void (*const kernel_)(const void*);
  const void* const params_;
  const LaunchOptions& options_;
  std::uint64_t random_;

  FiberStacks stacks_;
  Fiber host_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<int> order_;  // of warps
  int warps_at_block_ = 0, warps_done_ = 0;
  bool any_ = false;  // of the current BlockAny

  std::vector<std::byte> shared_;
  SharedShadow shadow_;
  BankCounter banks_;
  std::optional<EmulatorReport> report_;
  LaunchStats stats_;
};

// The block that runs on this host thread.
extern constinit thread_local Block* current_block;

}  // namespace regard::emulator
