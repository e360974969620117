// Panels that the prefill tasks of one (sequence, kv head) share: who comes first packs a block, later tasks read what
// it packed. Nobody waits: a task that finds a block being packed, or its slot at another head, packs into its own
// scratch. Which it is changes no bit.
//
// A slot belongs to one owner at a time, 1 + the number of its (sequence, kv head). `users` of a slot is owner << 16 | tasks
// at work in it, `states` of a block owner << 2 | BlockState, so that the words of an earlier owner read as empty.
#pragma once

#include "src/cpu/params.h"

namespace regard::cpu::REGARD_ISA {

enum BlockState : uint64_t { kEmpty, kBeingPacked, kPackedFinite, kPackedNonfinite };

// Whether a task of `owner` now works in its slot; LeaveSlot when it is done. False: it has none, or tasks of another
// owner are at work there.
static bool JoinSlot(const KeptPanels& kept, int64_t owner) {
  if (owner == 0 || kept.slots == 0) return false;
  const uint64_t mine = static_cast<uint64_t>(owner);
  uint64_t* const users = kept.users + owner % kept.slots;
  uint64_t seen = __atomic_load_n(users, __ATOMIC_ACQUIRE);
  for (;;) {
    uint64_t joined;
    if (seen >> 16 == mine) {
      joined = seen + 1;
    } else if ((seen & 0xffff) == 0) {
      joined = mine << 16 | 1;
    } else {
      return false;
    }
    if (__atomic_compare_exchange_n(users, &seen, joined, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return true;
  }
}
static void LeaveSlot(const KeptPanels& kept, int64_t owner) {
  __atomic_fetch_sub(kept.users + owner % kept.slots, uint64_t{1}, __ATOMIC_RELEASE);
}

// One block of a slot that the task works in.
struct KeptBlock {
  uint64_t* state;
  float* panels;
};
static KeptBlock KeptBlockAt(const KeptPanels& kept, int64_t owner, int64_t block) {
  const int64_t at = owner % kept.slots * kept.blocks + block;
  return {kept.states + at, kept.data + at * kept.block_floats};
}
static BlockState StateOf(const KeptBlock& block, int64_t owner) {
  const uint64_t word = __atomic_load_n(block.state, __ATOMIC_ACQUIRE);
  return word >> 2 == static_cast<uint64_t>(owner) ? static_cast<BlockState>(word & 3) : kEmpty;
}
// Whether the caller is the one to pack an empty block; it says when it has done so.
static bool StartPacking(const KeptBlock& block, int64_t owner) {
  const uint64_t mine = static_cast<uint64_t>(owner);
  uint64_t word = __atomic_load_n(block.state, __ATOMIC_RELAXED);
  return word >> 2 != mine && __atomic_compare_exchange_n(block.state, &word, mine << 2 | kBeingPacked, false,
                                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}
static void DonePacking(const KeptBlock& block, int64_t owner, bool finite) {
  const BlockState state = finite ? kPackedFinite : kPackedNonfinite;
  __atomic_store_n(block.state, static_cast<uint64_t>(owner) << 2 | state, __ATOMIC_RELEASE);
}

}  // namespace regard::cpu::REGARD_ISA
