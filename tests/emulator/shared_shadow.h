// What is known of each byte of a block's shared memory: whether it was written, by whom and when, who has read it
// since, and whether a cp.async is on its way to it. Time is a counter that every barrier advances; two accesses are
// ordered where the same thread made both, or a barrier of the block, or of their common warp, lies between. Words of
// four bytes that are accessed whole have one cell; others have one for each byte. Owns its cells.
#pragma once

#include <cstdint>
#include <vector>

namespace regard::emulator {

class SharedShadow {
 public:
  enum class Verdict { kFine, kUninitialised, kPending, kWriteThenRead, kReadThenWrite, kWriteThenWrite };
  struct Conflict {
    std::uint32_t byte = 0;
    int other = -1;  // thread; -1: several
  };

  void Reset(std::uint32_t bytes, int threads);
  void WarpSync(int warp) { warp_sync_[static_cast<std::size_t>(warp)] = ++now_; }
  void BlockSync();

  // Accesses of `thread` to [offset, offset + bytes), inside the block's memory, aligned to their size.
  Verdict Read(std::uint32_t offset, std::uint32_t bytes, int thread, Conflict& conflict);
  Verdict Write(std::uint32_t offset, std::uint32_t bytes, int thread, Conflict& conflict);
  // A cp.async of 16 bytes begins, and ends at the wait of the thread that began it.
  Verdict Begin(std::uint32_t offset, int thread, Conflict& conflict);
  void End(std::uint32_t offset);

 private:
  static constexpr std::uint16_t kNobody = 0xffff, kSeveralWarps = 0xfffe, kSeveralLanes = 0x8000;  // + warp
  enum Flag : std::uint8_t { kInitialised = 1, kPending = 2, kByBytes = 4 };
  struct Cell {
    std::uint32_t write_time = 0, read_time = 0;
    std::uint16_t writer = kNobody, reader = kNobody;
    std::uint8_t flags = 0;
  };

  bool Ordered(int first, std::uint32_t time, int second) const {
    if (first == second || time < block_sync_) return true;
    return first >> 5 == second >> 5 && time < warp_sync_[static_cast<std::size_t>(second >> 5)];
  }
  bool ReadsOrdered(const Cell& cell, int thread) const;
  Verdict ReadCell(Cell& cell, int thread, Conflict& conflict);
  Verdict WriteCell(Cell& cell, int thread, Conflict& conflict);
  Verdict BeginCell(Cell& cell, int thread, Conflict& conflict);
  template <auto access>
  Verdict Access(std::uint32_t offset, std::uint32_t bytes, int thread, Conflict& conflict);

  std::vector<Cell> words_, bytes_;
  std::vector<std::uint32_t> warp_sync_;
  std::uint32_t now_ = 1, block_sync_ = 1;
};

}  // namespace regard::emulator
