// Which block of threads works on what. Prefill: a grid of resident blocks walks the tiles, the latest positions of all
// heads first, whose causal rows see the most keys. Decode: one block a split, splits of a tile side by side.
#pragma once

#include "base/params.h"

namespace regard::cuda {

struct TileAddress {
  i32 b = 0, kv_head = 0, row_tile = 0, split = 0;
};

REGARD_DEVICE i64 TilesOf(const ForwardParams& p) {
  return static_cast<i64>(p.shape.batch) * p.shape.heads_kv * p.row_tiles;
}

REGARD_DEVICE TileAddress PrefillTile(const ForwardParams& p, i64 at) {
  const i64 heads = static_cast<i64>(p.shape.batch) * p.shape.heads_kv, rest = at % heads;
  return {static_cast<i32>(rest / p.shape.heads_kv), static_cast<i32>(rest % p.shape.heads_kv),
          p.row_tiles - 1 - static_cast<i32>(at / heads), 0};
}

// b >= batch: nothing to do.
REGARD_DEVICE TileAddress DecodeTile(const ForwardParams& p, i64 at) {
  if (p.row_tiles == 0) return {p.shape.batch, 0, 0, 0};  // no sequence has a query
  const i64 tile = at / p.splits, head = tile / p.row_tiles;
  return {static_cast<i32>(head / p.shape.heads_kv), static_cast<i32>(head % p.shape.heads_kv),
          static_cast<i32>(tile % p.row_tiles), static_cast<i32>(at % p.splits)};
}

}  // namespace regard::cuda
