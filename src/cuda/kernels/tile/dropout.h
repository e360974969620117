// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) as the semantics
// use it: four words serve the keys 4n..4n+3 of one query and head.
#pragma once

#include "base/params.h"
#include "ptx/math.h"

namespace regard::cuda {

struct RandomWords {
  u32 word[4];
};

REGARD_COLD RandomWords Philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
  constexpr u32 kMultiplierA = 0xD2511F53u, kMultiplierB = 0xCD9E8D57u, kStepA = 0x9E3779B9u, kStepB = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const u32 a_high = MultiplyHigh(kMultiplierA, c0), a_low = kMultiplierA * c0;
    const u32 b_high = MultiplyHigh(kMultiplierB, c2), b_low = kMultiplierB * c2;
    c0 = b_high ^ c1 ^ k0;
    c1 = b_low;
    c2 = a_high ^ c3 ^ k1;
    c3 = a_low;
    k0 += kStepA;
    k1 += kStepB;
  }
  return {{c0, c1, c2, c3}};
}

// The words of keys 4 * quad .. 4 * quad + 3 (j' = j - leftpad) for position p' = p - leftpad and row b * heads_q + h.
REGARD_DEVICE RandomWords DropoutWords(const Options& o, u32 quad, u32 position, u32 row) {
  return Philox(quad, position, row, o.dropout_offset, o.seed_low, o.seed_high);
}

REGARD_DEVICE bool Keeps(const Options& o, u32 word) { return o.dropout == 1 && word >= o.dropout_threshold; }

// Of one key, where its three neighbours are not at hand.
REGARD_DEVICE bool KeepsKey(const Options& o, u32 key, u32 position, u32 row) {
  const RandomWords words = DropoutWords(o, key / 4, position, row);
  const u32 word = key % 4 == 0   ? words.word[0]
                   : key % 4 == 1 ? words.word[1]
                   : key % 4 == 2 ? words.word[2]
                                  : words.word[3];
  return Keeps(o, word);
}

}  // namespace regard::cuda
