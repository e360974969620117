// What is known of each byte of a block's shared memory: whether it was written, by whom and when, who has read it
// since, and whether a cp.async is on its way to it. Time is a counter that every barrier advances; two accesses are
// ordered where the same thread made both, or a barrier of the block, or of their common warp, lies between. Words of
// four bytes that are accessed whole have one cell; others have one for each byte. Owns its cells.
#pragma once

#include <algorithm>
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

// One access costs some nanoseconds where all of this is inlined.

inline bool SharedShadow::ReadsOrdered(const Cell& cell, int thread) const {
  if (cell.reader == kNobody || cell.read_time < block_sync_) return true;
  if (cell.reader == kSeveralWarps) return false;
  if (cell.reader & kSeveralLanes) {
    const int warp = cell.reader & ~kSeveralLanes;
    return warp == thread >> 5 && cell.read_time < warp_sync_[static_cast<std::size_t>(warp)];
  }
  return Ordered(cell.reader, cell.read_time, thread);
}

inline SharedShadow::Verdict SharedShadow::ReadCell(Cell& cell, int thread, Conflict& conflict) {
  if (!(cell.flags & kInitialised)) return cell.flags & kPending ? Verdict::kPending : Verdict::kUninitialised;
  if (!Ordered(cell.writer, cell.write_time, thread)) {
    conflict.other = cell.writer;
    return Verdict::kWriteThenRead;
  }
  // One record stands for all reads since the last barrier of the block: the last reader, or how many there were.
  const int warp = thread >> 5;
  if (cell.reader == kNobody || cell.read_time < block_sync_) {
    cell.reader = static_cast<std::uint16_t>(thread);
  } else if (cell.reader != kSeveralWarps && cell.reader != thread) {
    const int reader_warp = cell.reader & kSeveralLanes ? cell.reader & ~kSeveralLanes : cell.reader >> 5;
    if (reader_warp != warp) {
      cell.reader = kSeveralWarps;
    } else if (cell.read_time < warp_sync_[static_cast<std::size_t>(warp)]) {
      cell.reader = static_cast<std::uint16_t>(thread);
    } else {
      cell.reader = static_cast<std::uint16_t>(kSeveralLanes | warp);
    }
  }
  cell.read_time = now_;
  return Verdict::kFine;
}

inline SharedShadow::Verdict SharedShadow::WriteCell(Cell& cell, int thread, Conflict& conflict) {
  if (cell.flags & kPending) return Verdict::kPending;
  if (cell.flags & kInitialised) {
    if (!Ordered(cell.writer, cell.write_time, thread)) {
      conflict.other = cell.writer;
      return Verdict::kWriteThenWrite;
    }
    if (!ReadsOrdered(cell, thread)) {
      conflict.other = cell.reader < kSeveralLanes ? cell.reader : -1;
      return Verdict::kReadThenWrite;
    }
  }
  cell.flags = static_cast<std::uint8_t>((cell.flags & kByBytes) | kInitialised);
  cell.writer = static_cast<std::uint16_t>(thread);
  cell.write_time = now_;
  cell.reader = kNobody;
  return Verdict::kFine;
}

inline SharedShadow::Verdict SharedShadow::BeginCell(Cell& cell, int thread, Conflict& conflict) {
  const Verdict verdict = WriteCell(cell, thread, conflict);
  if (verdict == Verdict::kFine) cell.flags = static_cast<std::uint8_t>((cell.flags & kByBytes) | kPending);
  return verdict;
}

template <auto access>
inline SharedShadow::Verdict SharedShadow::Access(std::uint32_t offset, std::uint32_t bytes, int thread,
                                                  Conflict& conflict) {
  const std::uint32_t first = offset / 4, last = (offset + bytes - 1) / 4;
  for (std::uint32_t w = first; w <= last; ++w) {
    Cell& word = words_[w];
    if (bytes >= 4 && !(word.flags & kByBytes)) {
      const Verdict verdict = (this->*access)(word, thread, conflict);
      if (verdict != Verdict::kFine) {
        conflict.byte = w * 4;
        return verdict;
      }
      continue;
    }
    if (!(word.flags & kByBytes)) {
      std::fill_n(bytes_.begin() + w * 4, 4, word);
      word.flags |= kByBytes;
    }
    const std::uint32_t begin = std::max(offset, w * 4), end = std::min(offset + bytes, w * 4 + 4);
    for (std::uint32_t b = begin; b < end; ++b) {
      const Verdict verdict = (this->*access)(bytes_[b], thread, conflict);
      if (verdict != Verdict::kFine) {
        conflict.byte = b;
        return verdict;
      }
    }
  }
  return Verdict::kFine;
}

inline SharedShadow::Verdict SharedShadow::Read(std::uint32_t offset, std::uint32_t bytes, int thread,
                                                Conflict& conflict) {
  return Access<&SharedShadow::ReadCell>(offset, bytes, thread, conflict);
}
inline SharedShadow::Verdict SharedShadow::Write(std::uint32_t offset, std::uint32_t bytes, int thread,
                                                 Conflict& conflict) {
  return Access<&SharedShadow::WriteCell>(offset, bytes, thread, conflict);
}
inline SharedShadow::Verdict SharedShadow::Begin(std::uint32_t offset, int thread, Conflict& conflict) {
  return Access<&SharedShadow::BeginCell>(offset, 16, thread, conflict);
}

}  // namespace regard::emulator
