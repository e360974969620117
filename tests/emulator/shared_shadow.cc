#include "tests/emulator/shared_shadow.h"

#include <algorithm>

namespace regard::emulator {

void SharedShadow::Reset(std::uint32_t bytes, int threads) {
  const std::size_t words = (bytes + 3) / 4;
  words_.assign(words, Cell{});
  if (bytes_.size() < words * 4) bytes_.resize(words * 4);
  warp_sync_.assign(static_cast<std::size_t>((threads + 31) / 32), 1);
  now_ = block_sync_ = 1;
}

void SharedShadow::BlockSync() {
  block_sync_ = ++now_;
  std::fill(warp_sync_.begin(), warp_sync_.end(), now_);
}

bool SharedShadow::ReadsOrdered(const Cell& cell, int thread) const {
  if (cell.reader == kNobody || cell.read_time < block_sync_) return true;
  if (cell.reader == kSeveralWarps) return false;
  if (cell.reader & kSeveralLanes) {
    const int warp = cell.reader & ~kSeveralLanes;
    return warp == thread >> 5 && cell.read_time < warp_sync_[static_cast<std::size_t>(warp)];
  }
  return Ordered(cell.reader, cell.read_time, thread);
}

SharedShadow::Verdict SharedShadow::ReadCell(Cell& cell, int thread, Conflict& conflict) {
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

SharedShadow::Verdict SharedShadow::WriteCell(Cell& cell, int thread, Conflict& conflict) {
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

SharedShadow::Verdict SharedShadow::BeginCell(Cell& cell, int thread, Conflict& conflict) {
  const Verdict verdict = WriteCell(cell, thread, conflict);
  if (verdict == Verdict::kFine) cell.flags = static_cast<std::uint8_t>((cell.flags & kByBytes) | kPending);
  return verdict;
}

template <auto access>
SharedShadow::Verdict SharedShadow::Access(std::uint32_t offset, std::uint32_t bytes, int thread, Conflict& conflict) {
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

SharedShadow::Verdict SharedShadow::Read(std::uint32_t offset, std::uint32_t bytes, int thread, Conflict& conflict) {
  return Access<&SharedShadow::ReadCell>(offset, bytes, thread, conflict);
}
SharedShadow::Verdict SharedShadow::Write(std::uint32_t offset, std::uint32_t bytes, int thread, Conflict& conflict) {
  return Access<&SharedShadow::WriteCell>(offset, bytes, thread, conflict);
}
SharedShadow::Verdict SharedShadow::Begin(std::uint32_t offset, int thread, Conflict& conflict) {
  return Access<&SharedShadow::BeginCell>(offset, 16, thread, conflict);
}

void SharedShadow::End(std::uint32_t offset) {
  const auto end_cell = [this](Cell& cell) {
    cell.flags = static_cast<std::uint8_t>((cell.flags & kByBytes) | kInitialised);
    cell.write_time = now_;
  };
  for (std::uint32_t w = offset / 4; w < offset / 4 + 4; ++w) {
    if (words_[w].flags & kByBytes) {
      for (std::uint32_t b = w * 4; b < w * 4 + 4; ++b) end_cell(bytes_[b]);
    } else {
      end_cell(words_[w]);
    }
  }
}

}  // namespace regard::emulator
