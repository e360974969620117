// Bugs between threads: accesses to shared memory with no barrier between them, and copies under way.
#include "ptx/async.h"
#include "ptx/ldmatrix.h"
#include "ptx/memory.h"
#include "ptx/shuffle.h"
#include "ptx/thread.h"
#include "tests/emulator/planted.h"

namespace regard::emulator {
namespace {

using namespace cuda;
using Params = PlantedParams;

// Odd lanes read what the lane before wrote.
template <bool barrier>
void ReadsNeighbourInWarp(const Params& p) {
  const Shared<float> cell(0);
  cell.Store(ThreadIndex(), 1);
  if (barrier) WarpBarrier();
  Global<float>(p.out).Store(ThreadIndex(), cell.Load(ThreadIndex() & ~1));
}

// A shuffle is no barrier for memory.
template <bool barrier>
void ReadsNeighbourAfterShuffle(const Params& p) {
  const Shared<float> cell(0);
  cell.Store(Lane(), 1);
  const float x = ShuffleXor(1.0f, 1);
  if (barrier) WarpBarrier();
  Global<float>(p.out).Store(Lane(), cell.Load(Lane() & ~1) + x);
}

// The other warp's value wants a barrier of the block; that of the warp is not enough.
template <bool barrier>
void ReadsOtherWarp(const Params& p) {
  const Shared<float> cell(0);
  cell.Store(ThreadIndex(), 1);
  WarpBarrier();
  if (barrier) BlockBarrier();
  Global<float>(p.out).Store(ThreadIndex(), cell.Load(ThreadIndex() & 31));
}

// A buffer is filled again before all have read it.
template <bool barrier>
void RefillsTooSoon(const Params& p) {
  const Shared<float> cell(0);
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    if (ThreadIndex() == 0) cell.Store(0, 1);
    BlockBarrier();
    sum += cell.Load(0);
    if (barrier) BlockBarrier();
  }
  Global<float>(p.out).Store(ThreadIndex(), sum);
}

template <bool apart>
void WritesTheSameCell(const Params&) {
  Shared<float>(0).Store(apart ? Lane() : Lane() / 2, 1);
}

// Neighbouring bytes of one word are no race.
template <bool apart>
void WritesBytesOfAWord(const Params&) {
  Shared<u8>(0).Store(apart ? Lane() : Lane() % 31, 1);
}

// ldmatrix reads rows that other lanes wrote.
template <bool barrier>
void LoadsMatrixTooSoon(const Params& p) {
  const Shared<u16> rows(0);
  for (int i = 0; i < 8; ++i) rows.Store((Lane() ^ 1) * 8 + i, 1);
  if (barrier) WarpBarrier();
  u32 r[4];
  LoadMatrix4(r, rows, Lane() * 8);
  Global<u32>(reinterpret_cast<u32*>(p.out)).Store(Lane(), r[0]);
}

void Copy(const Params& p, int slot, int from) {
  CopyAsync16(Shared<float>(0), slot * 4, Global<const float>(p.in), from * 4, true);
}

// Two groups; the value of the second is read while only the first is awaited.
template <bool wait>
void ReadsBeforeTheWait(const Params& p) {
  const int t = Lane();
  Copy(p, t, t % 16);
  CopyAsyncCommit();
  Copy(p, t + 32, (t + 1) % 16);
  CopyAsyncCommit();
  if (wait)
    CopyAsyncWait<0>();
  else
    CopyAsyncWait<1>();
  Global<float>(p.out).Store(t, Shared<float>(0).Load((t + 32) * 4));
}

// A group that is not committed is not awaited either.
template <bool commit>
void WaitsWithoutCommit(const Params& p) {
  Copy(p, Lane(), 0);
  if (commit) CopyAsyncCommit();
  CopyAsyncWait<0>();
  Global<float>(p.out).Store(Lane(), Shared<float>(0).Load(Lane() * 4));
}

// After the wait the copying thread may read; others wait for a barrier.
template <bool barrier>
void ReadsTheNeighboursCopy(const Params& p) {
  Copy(p, Lane(), 0);
  CopyAsyncCommit();
  CopyAsyncWait<0>();
  if (barrier) WarpBarrier();
  Global<float>(p.out).Store(Lane(), Shared<float>(0).Load((Lane() & ~1) * 4));
}

// The barrier alone, without a wait before it, orders nothing.
template <bool wait>
void BarrierInPlaceOfTheWait(const Params& p) {
  Copy(p, Lane(), 0);
  CopyAsyncCommit();
  if (wait) CopyAsyncWait<0>();
  BlockBarrier();
  Global<float>(p.out).Store(Lane(), Shared<float>(0).Load((Lane() & ~1) * 4));
}

template <bool wait>
void OverwritesACopyUnderWay(const Params& p) {
  Copy(p, Lane(), 0);
  CopyAsyncCommit();
  if (wait) CopyAsyncWait<0>();
  Shared<float>(0).Store(Lane() * 4, 2);
}

// A copy is sent to a slot that another thread still reads.
template <bool barrier>
void CopiesOverAReadSlot(const Params& p) {
  const Shared<float> cell(0);
  for (int i = 0; i < 4; ++i) cell.Store(Lane() * 4 + i, 1);
  WarpBarrier();
  Global<float>(p.out).Store(Lane(), cell.Load((Lane() | 1) * 4));
  if (barrier) WarpBarrier();
  Copy(p, Lane(), 0);
}

constexpr Planted kPlanted[] = {
    {"a neighbour's value without a barrier of the warp", ReadsNeighbourInWarp<false>, ReadsNeighbourInWarp<true>,
     Finding::kSharedRace, "wrote it with no barrier between"},
    {"a shuffle in place of a barrier", ReadsNeighbourAfterShuffle<false>, ReadsNeighbourAfterShuffle<true>,
     Finding::kSharedRace, "is read, and thread"},
    {"a barrier of the warp where the block's is needed", ReadsOtherWarp<false>, ReadsOtherWarp<true>,
     Finding::kSharedRace, "is read, and thread 31 wrote it with no barrier between", 64},
    {"a buffer filled again before all have read it", RefillsTooSoon<false>, RefillsTooSoon<true>, Finding::kSharedRace,
     "byte 0 of shared memory is written, and several threads read it", 64},
    {"two writers of one cell", WritesTheSameCell<false>, WritesTheSameCell<true>, Finding::kSharedRace,
     "is written, and thread 0 wrote it with no barrier between"},
    {"two writers of one byte", WritesBytesOfAWord<false>, WritesBytesOfAWord<true>, Finding::kSharedRace,
     "byte 0 of shared memory is written, and thread 0 wrote it"},
    {"ldmatrix without a barrier", LoadsMatrixTooSoon<false>, LoadsMatrixTooSoon<true>, Finding::kSharedRace,
     "byte 0 of shared memory is read, and thread 1 wrote it"},
    {"data of a copy group that is under way", ReadsBeforeTheWait<false>, ReadsBeforeTheWait<true>,
     Finding::kPendingCopy, "byte 512 of shared memory is read while a copy to it is under way"},
    {"a wait for a copy that was not committed", WaitsWithoutCommit<false>, WaitsWithoutCommit<true>,
     Finding::kPendingCopy, "is read while a copy to it is under way"},
    {"a neighbour's copy without a barrier", ReadsTheNeighboursCopy<false>, ReadsTheNeighboursCopy<true>,
     Finding::kSharedRace, "is read, and thread"},
    {"a barrier in place of the wait", BarrierInPlaceOfTheWait<false>, BarrierInPlaceOfTheWait<true>,
     Finding::kPendingCopy, "is read while a copy to it is under way"},
    {"a copy under way overwritten", OverwritesACopyUnderWay<false>, OverwritesACopyUnderWay<true>,
     Finding::kPendingCopy, "is overwritten while a copy to it is under way"},
    {"a copy over a slot that is still read", CopiesOverAReadSlot<false>, CopiesOverAReadSlot<true>,
     Finding::kSharedRace, "is written, and several threads read it"},
};

}  // namespace

std::span<const Planted> PlantedBetweenThreads() {
  return kPlanted;
}

}  // namespace regard::emulator
