// What the emulated ptx/ headers call: the running thread's view of the engine. Only inside a launch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/emulator/report.h"

namespace regard::emulator {

// Position of the thread that runs on this host thread.
struct Position {
  int thread = 0;
  int block[3] = {0, 0, 0};
  int grid[3] = {1, 1, 1};
  int arch = 80;
};
extern constinit thread_local Position position;

enum class Collective : int {
  kWarpBarrier,
  kShuffle,
  kBallot,
  kMatrix4,  // ldmatrix
  kMatrix4Trans,
  kMatrix2Trans,
  kMmaF16,
  kMmaBF16,
  kMmaF16K8,
  kMmaTf32,
};

// What a lane brings to a collective, and takes away from it; the others see it while it waits.
struct ShuffleLane {
  std::uint32_t value, result;
  int source;  // lane
};
struct BallotLane {
  bool value;
  std::uint32_t result;
};
struct MatrixLane {
  std::uint32_t offset;   // of the row
  std::uint32_t* result;  // 4 or 2 words
};
struct MmaLane {
  float* d;
  std::uint32_t a[4], b[2];
};

// All lanes of the warp call it at the same place with the same `uniform`; returns when the operation is done.
void Meet(Collective kind, Site site, std::uint32_t uniform, void* lane);
// All threads of the block. Whether `x` holds in any.
bool MeetBlock(bool any, bool x, Site site);

// Host memory behind a checked access, naturally aligned.
const std::byte* GlobalRead(const void* address, std::uint32_t bytes, Site site);
std::byte* GlobalWrite(void* address, std::uint32_t bytes, Site site);
const std::byte* SharedRead(std::int64_t offset, std::uint32_t bytes, Site site);
std::byte* SharedWrite(std::int64_t offset, std::uint32_t bytes, Site site);

// cp.async of 16 bytes, zeros where `from` is null; commit; wait until at most `pending` groups are under way.
void CopyBegin(std::int64_t offset, const void* from, Site site);
void CopyCommit();
void CopyWait(int pending);

// A finding where the emulated chip is older than `arch`.
void Require(int arch, const char* instruction, Site site);

}  // namespace regard::emulator
