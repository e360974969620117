// Bugs of threads that do not meet, or that ask for what the chip lacks.
#include "ptx/async.h"
#include "ptx/memory.h"
#include "ptx/mma.h"
#include "ptx/shuffle.h"
#include "ptx/thread.h"
#include "tests/emulator/planted.h"

namespace regard::emulator {
namespace {

using namespace cuda;
using Params = PlantedParams;

void ShufflesInABranch(const Params& p) {
  float x = 1;
  if (Lane() < 16) x += ShuffleXor(x, 1);
  Global<float>(p.out).Store(Lane(), x);
}
void ShufflesOutside(const Params& p) {
  const float other = ShuffleXor(1.0f, 1);
  Global<float>(p.out).Store(Lane(), Lane() < 16 ? 1 + other : 1);
}

// Both branches shuffle, but not together.
void ShufflesInBothBranches(const Params& p) {
  float x = 1;
  if (Lane() < 16) {
    x += ShuffleXor(x, 1);
  } else {
    x -= ShuffleXor(x, 1);
  }
  Global<float>(p.out).Store(Lane(), x);
}

void MasksDiffer(const Params& p) {
  Global<float>(p.out).Store(Lane(), ShuffleXor(1.0f, Lane() < 16 ? 1 : 2));
}
void MasksAgree(const Params& p) {
  Global<float>(p.out).Store(Lane(), ShuffleXor(1.0f, 2));
}

void LaneReturnsEarly(const Params& p) {
  if (Lane() == 7) return;
  Global<u32>(reinterpret_cast<u32*>(p.out)).Store(Lane(), Ballot(true));
}
void NoLaneReturnsEarly(const Params& p) {
  Global<u32>(reinterpret_cast<u32*>(p.out)).Store(Lane(), Ballot(true));
}

void LoopsDiffer(const Params&) {
  for (int i = 0; i <= Lane() / 31; ++i) WarpBarrier();
}
void LoopsAgree(const Params&) {
  for (int i = 0; i <= 1; ++i) WarpBarrier();
}

// Half of a warp at its barrier, half at the block's.
void BarriersDiffer(const Params&) {
  if (Lane() < 16) {
    WarpBarrier();
  } else {
    BlockBarrier();
  }
}
void BarriersAgree(const Params&) {
  BlockBarrier();
}

void WarpSkipsTheBarrier(const Params&) {
  if (Warp() == 0) BlockBarrier();
}
void LaneSkipsTheBarrier(const Params&) {
  if (ThreadIndex() != 40) BlockBarrier();
}
void AllMeetAtTheBarrier(const Params&) {
  BlockBarrier();
}

void AnyMeetsBarrier(const Params&) {
  if (Warp() == 0) {
    BlockBarrier();
  } else {
    BlockAny(true);
  }
}
void AnyMeetsAny(const Params&) {
  BlockAny(Warp() == 1);
}

void ProductOfSm80(const Params& p) {
  float d[4] = {0, 0, 0, 0};
  const u32 a[4] = {0, 0, 0, 0};
  MmaBF16(d, a, 0, 0);
  Global<float>(p.out).Store(Lane(), d[0]);
}

constexpr Planted kPlanted[] = {
    {"a shuffle of half a warp", ShufflesInABranch, ShufflesOutside, Finding::kDivergence,
     "lanes 0-15 at shuffle, planted_collectives.cc, argument 1; lanes 16-31 left the kernel"},
    {"two shuffles that look alike", ShufflesInBothBranches, ShufflesOutside, Finding::kDivergence,
     "lanes 0-15 at shuffle, planted_collectives.cc, argument 1; lanes 16-31 at shuffle, planted_collectives.cc"},
    {"masks that differ", MasksDiffer, MasksAgree, Finding::kDivergence, "argument 1; lanes 16-31 at shuffle"},
    {"a lane that left", LaneReturnsEarly, NoLaneReturnsEarly, Finding::kDivergence, "lane 7 left the kernel"},
    {"loops of different length", LoopsDiffer, LoopsAgree, Finding::kDivergence,
     "lanes 0-30 left the kernel; lane 31 at WarpBarrier"},
    {"barriers of warp and block mixed", BarriersDiffer, BarriersAgree, Finding::kDivergence,
     "lanes 0-15 at WarpBarrier, planted_collectives.cc; lanes 16-31 at the block barrier, planted_collectives.cc"},
    {"a warp that never reaches the block's barrier", WarpSkipsTheBarrier, AllMeetAtTheBarrier, Finding::kDeadlock,
     "threads of warp 1 have left the kernel", 64},
    {"a lane that never reaches the block's barrier", LaneSkipsTheBarrier, AllMeetAtTheBarrier, Finding::kDeadlock,
     "lanes 0-7 at the block barrier, planted_collectives.cc; lane 8 left the kernel; lanes 9-31 at", 64},
    {"two kinds of barrier that meet", AnyMeetsBarrier, AnyMeetsAny, Finding::kDivergence, "meets BlockAny", 64},
    {"a product that the chip lacks", ProductOfSm80, ProductOfSm80, Finding::kUnknownInstruction,
     "mma.m16n8k16 needs sm_80, the chip is sm_75", 32, 75},
};

}  // namespace

std::span<const Planted> PlantedInCollectives() {
  return kPlanted;
}

}  // namespace regard::emulator
