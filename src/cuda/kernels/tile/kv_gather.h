// Where keys lie. One warp finds the places of a block of 64 keys, reading each page number once, and leaves them in
// shared memory, where every thread that copies looks them up. Two tables take turns: the block that is being copied, and
// the one to come, whose page numbers are fetched meanwhile. A block whose keys follow one another in memory (one page,
// or dense) is found out and addressed by its first key alone. Page numbers are checked: a key on a page that does not
// exist is not read, and nobody sees it.
#pragma once

#include "base/config.h"
#include "base/params.h"
#include "ptx/memory.h"
#include "ptx/shuffle.h"
#include "tile/sequence.h"

namespace regard::cuda {

// Row `slot` of page (or cache row) `page`; -1: nowhere.
struct Place {
  i32 page = -1, slot = 0;
};

REGARD_DEVICE i64 OffsetOf(const Rows& rows, Place place, int head) {
  return place.page * rows.batch + place.slot * rows.row + head * rows.head;
}

// Key j of the sequence, 0 <= j < seq_kv; nowhere where its page does not exist.
REGARD_DEVICE Place PlaceOfKey(const Cache& cache, const Sequence& s, i32 j) {
  if (!cache.paged) {
    return cache.packed ? Place{0, static_cast<i32>(s.kv_row + j)} : Place{static_cast<i32>(s.kv_row), j};
  }
  const u32 entry = static_cast<u32>(j) / static_cast<u32>(cache.page_size);
  if (entry >= static_cast<u32>(s.table_pages)) return {};
  const i32 page = cache.csr ? EntryOf(cache.indices, s.kv_row + entry)
                             : EntryOf(cache.block_table, s.kv_row * cache.table_stride + entry);
  if (page < 0 || page >= cache.pages) return {};
  return {page, static_cast<i32>(static_cast<u32>(j) - entry * static_cast<u32>(cache.page_size))};
}

// What all keys of a block have in common.
struct BlockPlace {
  Place origin;         // of its first key
  bool run = true;      // the others' slots follow it, on its page
  u32 bad[2] = {0, 0};  // bit n % 32 of word n / 32: key n lies on a page that does not exist
  REGARD_DEVICE bool AnyBad() const { return (bad[0] | bad[1]) != 0; }
};

// The tables of two blocks, at `offset` of shared memory. Block n has table n % 2.
struct PlaceTables {
  static constexpr int kWords = 2 * kBlockKeys + 8;  // page and slot of each key; origin, run, bad
  static_assert(2 * kWords * 4 == TensorLayout::kPlaceBytes);

  u32 offset;
  REGARD_DEVICE explicit PlaceTables(u32 bytes) : offset(bytes) {}
  REGARD_DEVICE Shared<i32> TableOf(int block) const { return Shared<i32>(offset + (block & 1) * kWords * 4); }

  // By the first warp; a block barrier parts it from those who read. Nothing to do unless the cache is paged.
  REGARD_DEVICE void Fill(const Cache& cache, const Sequence& s, int block) const {
    if (!cache.paged || Warp() != 0) return;
    const Shared<i32> table = TableOf(block);
    const i32 begin = s.leftpad + block * kBlockKeys, count = Min(s.seq_kv - begin, kBlockKeys);
    const int lane = Lane();
    Place low, high;
    if (lane < count) low = PlaceOfKey(cache, s, begin + lane);
    if (lane + 32 < count) high = PlaceOfKey(cache, s, begin + lane + 32);
    const Place origin{ShuffleFrom(low.page, 0), ShuffleFrom(low.slot, 0)};
    const auto strays = [&](Place place, int n) {
      return n < count && (place.page != origin.page || place.slot != origin.slot + n);
    };
    const bool run = Ballot(strays(low, lane) || strays(high, lane + 32)) == 0;
    const u32 bad_low = Ballot(lane < count && low.page < 0);
    const u32 bad_high = Ballot(lane + 32 < count && high.page < 0);
    table.Store(2 * lane, low.page);
    table.Store(2 * lane + 1, low.slot);
    table.Store(2 * lane + 64, high.page);
    table.Store(2 * lane + 65, high.slot);
    if (lane != 0) return;
    table.Store(2 * kBlockKeys, origin.page);
    table.Store(2 * kBlockKeys + 1, origin.slot);
    table.Store(2 * kBlockKeys + 2, run ? 1 : 0);
    table.Store(2 * kBlockKeys + 3, static_cast<i32>(bad_low));
    table.Store(2 * kBlockKeys + 4, static_cast<i32>(bad_high));
  }

  REGARD_DEVICE BlockPlace BlockOf(const Cache& cache, const Sequence& s, int block) const {
    BlockPlace place;
    if (!cache.paged) {
      place.origin = PlaceOfKey(cache, s, s.leftpad + block * kBlockKeys);
      return place;
    }
    const Shared<i32> table = TableOf(block);
    place.origin = {table.Load(2 * kBlockKeys), table.Load(2 * kBlockKeys + 1)};
    place.run = table.Load(2 * kBlockKeys + 2) != 0;
    place.bad[0] = static_cast<u32>(table.Load(2 * kBlockKeys + 3));
    place.bad[1] = static_cast<u32>(table.Load(2 * kBlockKeys + 4));
    return place;
  }

  // Key n of the block.
  REGARD_DEVICE Place Of(const BlockPlace& place, int block, int n) const {
    if (place.run) return {place.origin.page, place.origin.slot + n};
    const Shared<i32> table = TableOf(block);
    return {table.Load(2 * n), table.Load(2 * n + 1)};
  }
};

}  // namespace regard::cuda
