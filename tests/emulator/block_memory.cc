// Shared memory of the running block, with its checks, and the copies under way to it.
#include <algorithm>
#include <cstring>
#include <utility>

#include "tests/emulator/block.h"

namespace regard::emulator {

using Verdict = SharedShadow::Verdict;

inline void Block::CheckShared(std::int64_t offset, std::uint32_t bytes, Site site) {
  if (offset < 0 || offset + bytes > static_cast<std::int64_t>(shared_.size())) {
    Fail(Finding::kSharedBounds, site,
         std::to_string(bytes) + " bytes at byte " + std::to_string(offset) + " of the block's " +
             std::to_string(shared_.size()));
  }
  if ((offset & (bytes - 1)) != 0) {
    Fail(Finding::kMisaligned, site,
         std::to_string(bytes) + " bytes at byte " + std::to_string(offset) + " of shared memory");
  }
}

void Block::Report(SharedShadow::Verdict verdict, const SharedShadow::Conflict& conflict, bool write, Site site) {
  const std::string at = "byte " + std::to_string(conflict.byte) + " of shared memory";
  const std::string other = conflict.other < 0 ? "several threads" : "thread " + std::to_string(conflict.other);
  switch (verdict) {
    case Verdict::kUninitialised:
      Fail(Finding::kUninitialisedShared, site, at + " was never written");
    case Verdict::kPending:
      Fail(Finding::kPendingCopy, site,
           at + (write ? " is overwritten" : " is read") + " while a copy to it is under way");
    case Verdict::kWriteThenRead:
      Fail(Finding::kSharedRace, site, at + " is read, and " + other + " wrote it with no barrier between");
    case Verdict::kReadThenWrite:
      Fail(Finding::kSharedRace, site, at + " is written, and " + other + " read it with no barrier between");
    default:
      Fail(Finding::kSharedRace, site, at + " is written, and " + other + " wrote it with no barrier between");
  }
}

inline std::byte* Block::Shared(std::int64_t offset, std::uint32_t bytes, bool write, Site site) {
  CheckShared(offset, bytes, site);
  const auto at = static_cast<std::uint32_t>(offset);
  SharedShadow::Conflict conflict;
  const Verdict verdict =
      write ? shadow_.Write(at, bytes, position.thread, conflict) : shadow_.Read(at, bytes, position.thread, conflict);
  if (verdict != Verdict::kFine) Report(verdict, conflict, write, site);
  if (options_.count_banks) banks_.Log(position.thread, site, at, bytes);
  return shared_.data() + at;
}

const std::byte* SharedRead(std::int64_t offset, std::uint32_t bytes, Site site) {
  return current_block->Shared(offset, bytes, false, site);
}
std::byte* SharedWrite(std::int64_t offset, std::uint32_t bytes, Site site) {
  return current_block->Shared(offset, bytes, true, site);
}

void Block::CopyBegin(std::int64_t offset, const void* from, Site site) {
  CheckShared(offset, 16, site);
  Copy copy;
  copy.offset = static_cast<std::uint32_t>(offset);
  if (from) {
    std::memcpy(copy.data.data(), GlobalRead(from, 16, site), 16);
  } else {
    copy.data.fill(std::byte{0});
  }
  SharedShadow::Conflict conflict;
  const Verdict verdict = shadow_.Begin(copy.offset, position.thread, conflict);
  if (verdict != Verdict::kFine) Report(verdict, conflict, true, site);
  if (options_.count_banks) banks_.Log(position.thread, site, copy.offset, 16);
  threads_[static_cast<std::size_t>(position.thread)].open.push_back(copy);
}

void Block::CopyCommit() {
  Thread& thread = threads_[static_cast<std::size_t>(position.thread)];
  thread.groups.push_back(std::move(thread.open));
  thread.open.clear();
}

void Block::CopyWait(int pending) {
  Thread& thread = threads_[static_cast<std::size_t>(position.thread)];
  const auto kept = std::min(thread.groups.size(), static_cast<std::size_t>(pending));
  const auto landed = static_cast<std::ptrdiff_t>(thread.groups.size() - kept);
  for (auto group = thread.groups.begin(); group != thread.groups.begin() + landed; ++group) {
    for (const Copy& copy : *group) {
      std::memcpy(shared_.data() + copy.offset, copy.data.data(), 16);
      shadow_.End(copy.offset);
    }
  }
  thread.groups.erase(thread.groups.begin(), thread.groups.begin() + landed);
}

void Block::LoadMatrices(const Arrival* arrivals, Collective kind) {
  const int words = kind == Collective::kMatrix2Trans ? 2 : 4;
  const bool transposed = kind != Collective::kMatrix4;
  std::uint32_t offsets[32];
  std::uint16_t rows[32][8];
  const int self = position.thread;
  for (int l = 0; l < 32; ++l) {
    const auto& lane = *static_cast<const MatrixLane*>(arrivals[l].lane);
    offsets[l] = lane.offset;
    const Site site = arrivals[l].site;
    position.thread = (self & ~31) + l;  // findings name the lane that gave the address
    CheckShared(lane.offset, 16, site);
    if (l >= words * 8) continue;
    SharedShadow::Conflict conflict;
    const Verdict verdict = shadow_.Read(lane.offset, 16, position.thread, conflict);
    if (verdict != Verdict::kFine) Report(verdict, conflict, false, site);
    std::memcpy(rows[l], shared_.data() + lane.offset, 16);
  }
  position.thread = self;
  for (int l = 0; l < 32; ++l) {
    const auto& lane = *static_cast<const MatrixLane*>(arrivals[l].lane);
    const int row = l / 4, column = 2 * (l % 4);
    for (int m = 0; m < words; ++m) {
      const std::uint32_t low = transposed ? rows[8 * m + column][row] : rows[8 * m + row][column];
      const std::uint32_t high = transposed ? rows[8 * m + column + 1][row] : rows[8 * m + row][column + 1];
      lane.result[m] = low | high << 16;
    }
  }
  if (options_.count_banks) banks_.CountMatrices(arrivals[0].site, offsets, words * 8);
}

}  // namespace regard::emulator
