// Dropout of a row's weights: "Dropout" of docs/semantics.md, bit for bit, whatever the tile, the chunk or the thread.
// Philox4x32-10 (src/reference/philox.cc) runs kCalls counters side by side, each word in the low dword of a 64-bit
// lane: the 64-bit product of two words lands where both its halves are needed, and high dwords may hold anything.
#pragma once

#include "src/cpu/tile/mods.h"

namespace regard::cpu::REGARD_ISA {

// factor[k] = what the weight of key j' = first + k of the row is multiplied by, k in [0, n): drop_scale where it is
// kept, else +0. `first` is a multiple of 4, so that a call's four words belong to four neighbours.
static void DropFactors(const ForwardParams& p, const Seq& s, const Row& row, int64_t first, int n, float* factor) {
  constexpr int kRounds = 10, kCalls = kLanes / 2;
  static_assert(4 * kCalls == kPanelKeys);
  const uint64_t key = p.drop_seed ^ (p.drop_offset >> 32 << 32);
  V keys[kRounds][2];
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int r = 0; r < kRounds; ++r, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    keys[r][0] = SplatBits(k0);
    keys[r][1] = SplatBits(k1);
  }
  // Lanes count in the order in which ZipPairs brings them back: 0, kCalls / 2, 1, kCalls / 2 + 1, ...
  alignas(64) float counters[kLanes];
  for (int i = 0; i < kCalls; ++i) {
    const int turn = i / 2 + i % 2 * (kCalls / 2);
    const uint32_t words[2] = {static_cast<uint32_t>(first) / 4 + static_cast<uint32_t>(turn), 0};
    memcpy(counters + 2 * i, words, sizeof words);
  }
  V counter = Load(counters);
  const V step = SplatBits(kCalls), m0 = SplatBits(0xD2511F53u), m1 = SplatBits(0xCD9E8D57u);
  const V query = SplatBits(static_cast<uint32_t>(row.i + s.q_offset - s.leftpad));
  const V head = SplatBits(static_cast<uint32_t>(row.b * p.heads_q + row.h));
  const V offset = SplatBits(static_cast<uint32_t>(p.drop_offset));
  const V threshold = SplatBits(p.drop_threshold), scale = Splat(p.drop_scale);
  for (int k = 0; k < n; k += kPanelKeys, counter = AddBits(counter, step)) {
    V c0 = counter, c1 = query, c2 = head, c3 = offset;
    REGARD_UNROLL
    for (int r = 0; r < kRounds; ++r) {
      const V a = MulEven(c0, m0), b = MulEven(c2, m1);
      c0 = Xor(OddToEven(b), c1, keys[r][0]);
      c1 = b;
      c2 = Xor(OddToEven(a), c3, keys[r][1]);
      c3 = a;
    }
    V w0, w1;
    ZipPairs(MergeEven(c0, c1), MergeEven(c2, c3), &w0, &w1);
    alignas(64) float tail[kPanelKeys];
    float* const to = n - k < kPanelKeys ? tail : factor + k;
    Store(to, KeepFrom(w0, threshold, scale));
    Store(to + kLanes, KeepFrom(w1, threshold, scale));
    if (to == tail) memcpy(factor + k, tail, sizeof(float) * static_cast<size_t>(n - k));
  }
}

// DropFactors outside this instruction set's namespace.
static void DropFactorsOf(const ForwardParams& p, const Seq& s, int64_t b, int64_t h, int64_t i, int64_t first, int n,
                          float* factor) {
  DropFactors(p, s, Row{b, h, i, 0, 0}, first, n, factor);
}

// What SoftmaxRows multiplies weights by once they are summed: nothing, or the factors of rows[r], whose score x[k]
// belongs to key j' = start + k.
struct KeepAll {
  static constexpr bool kDrops = false;
};
struct DropSome {
  static constexpr bool kDrops = true;
  const ForwardParams& p;
  const Seq& s;
  const Row* rows;
  int64_t start;
};

}  // namespace regard::cpu::REGARD_ISA
