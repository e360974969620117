// Panels that prefill tasks share: who packs a block and who reads it never mix, and sharing changes no bit.
#define REGARD_ISA kept_test  // the namespace of tile/kept.h
#include "src/cpu/tile/kept.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "regard/regard.h"
#include "tests/support/tuned.h"

namespace regard {
namespace {

using namespace cpu;
using namespace cpu::REGARD_ISA;

// Slots with nothing in them.
struct Slots {
  std::vector<std::uint64_t> users, states;
  std::vector<float> data;
  KeptPanels kept;
  Slots(std::int64_t slots, std::int64_t blocks, std::int64_t floats)
      : users(static_cast<std::size_t>(slots)),
        states(static_cast<std::size_t>(slots * blocks)),
        data(static_cast<std::size_t>(slots * blocks * floats)),
        kept{slots, blocks, floats, data.data(), users.data(), states.data()} {}
};

TEST(Kept, ATaskWithoutAnOwnerAndAPlanWithoutSlotsShareNothing) {
  const Slots s(2, 1, 1);
  EXPECT_FALSE(JoinSlot(s.kept, 0));
  EXPECT_FALSE(JoinSlot(KeptPanels{}, 7));
}

TEST(Kept, TasksOfOneOwnerJoinAndOthersOnlyOnceAllHaveLeft) {
  const Slots s(2, 1, 1);
  EXPECT_TRUE(JoinSlot(s.kept, 1));
  EXPECT_TRUE(JoinSlot(s.kept, 1));
  EXPECT_TRUE(JoinSlot(s.kept, 2));   // the other slot
  EXPECT_FALSE(JoinSlot(s.kept, 3));  // slot of 1
  LeaveSlot(s.kept, 1);
  EXPECT_FALSE(JoinSlot(s.kept, 3));
  LeaveSlot(s.kept, 1);
  EXPECT_TRUE(JoinSlot(s.kept, 3));
  EXPECT_FALSE(JoinSlot(s.kept, 1));  // too late
}

TEST(Kept, ABlockIsPackedOnceAndEmptyForTheNextOwner) {
  const Slots s(1, 2, 1);
  ASSERT_TRUE(JoinSlot(s.kept, 5));
  const KeptBlock block = KeptBlockAt(s.kept, 5, 1);
  EXPECT_EQ(StateOf(block, 5), kEmpty);
  EXPECT_TRUE(StartPacking(block, 5));
  EXPECT_FALSE(StartPacking(block, 5));
  EXPECT_EQ(StateOf(block, 5), kBeingPacked);
  DonePacking(block, 5, false);
  EXPECT_EQ(StateOf(block, 5), kPackedNonfinite);
  EXPECT_FALSE(StartPacking(block, 5));
  LeaveSlot(s.kept, 5);
  ASSERT_TRUE(JoinSlot(s.kept, 6));
  EXPECT_EQ(StateOf(block, 6), kEmpty);
  EXPECT_TRUE(StartPacking(block, 6));
  DonePacking(block, 6, true);
  EXPECT_EQ(StateOf(block, 6), kPackedFinite);
}

// Threads that run tasks of many owners in any order: whatever lies ready is what its owner packed, and stays so until
// the task leaves.
TEST(Kept, ManyThreadsAndOwnersNeverReadAnothersPanels) {
  constexpr std::int64_t kSlots = 3, kBlocks = 4, kFloats = 16, kOwners = 11;
  constexpr int kThreads = 6, kTasks = 4000;
  Slots s(kSlots, kBlocks, kFloats);
  std::atomic<int> wrong{0}, joined{0}, packed{0}, found{0};
  const auto task = [&](std::int64_t owner) {
    if (!JoinSlot(s.kept, owner)) return;
    ++joined;
    for (std::int64_t n = 0; n < kBlocks; ++n) {
      const KeptBlock block = KeptBlockAt(s.kept, owner, n);
      const float value = static_cast<float>(owner * kBlocks + n);
      if (StateOf(block, owner) >= kPackedFinite) {
        ++found;
        wrong += static_cast<int>(kFloats - std::count(block.panels, block.panels + kFloats, value));
        wrong += (StateOf(block, owner) == kPackedFinite) != (owner % 2 == 0);
      } else if (StartPacking(block, owner)) {
        ++packed;
        std::fill_n(block.panels, kFloats, value);
        DonePacking(block, owner, owner % 2 == 0);
      }
    }
    LeaveSlot(s.kept, owner);
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::int64_t owner = 1;
      for (int n = 0; n < kTasks; ++n) {
        if (random() % 4 == 0) owner = 1 + static_cast<std::int64_t>(random() % kOwners);
        task(owner);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(joined, 0);
  EXPECT_GT(packed, kOwners);
  EXPECT_GT(found, 0);
  for (std::uint64_t users : s.users) EXPECT_EQ(users & 0xffff, 0u);
}

const char* const kProblems[] = {
    "prefill b=2 sq=300 skv=2700 hq=8 hkv=2 d=64 dtype=f32 causal lse lens=2700,1500",
    "prefill b=1 sq=700 skv=2700 hq=6 hkv=3 d=72 dv=40 dtype=f16 window=900,30 softcap=5",
    "mixed b=4 qlens=1,70,15,400 lens=3000,700,15,2100 varlen hq=4 hkv=2 d=64 dtype=bf16 page=16 causal",
    "prefill b=1 sq=300 skv=1300 hq=4 hkv=1 d=24 dv=40 qv dtype=bf16 chunk=600 causal"};

// Tasks small enough that many share a head; 1 MiB keeps a part of the longer sequences.
TEST(Kept, SharingChangesNoBit) {
  for (const std::string problem : kProblems) {
    for (Isa isa : DeviceCaps::Host().isas) {
      if (isa == Isa::kAvx512Bf16 && problem.find("bf16") == std::string::npos) continue;
      const std::vector<char> plain = testing::OutputUnder("keep=0", problem, isa, 1);
      for (const char* tuning : {"", "task_rows=48 min_task_rows=24", "task_rows=48 min_task_rows=24 keep=1"}) {
        for (int threads : {1, 2, 7}) {
          EXPECT_EQ(plain, testing::OutputUnder(tuning, problem, isa, threads)) << problem << " " << tuning << " " << threads;
        }
      }
    }
  }
}

}  // namespace
}  // namespace regard
