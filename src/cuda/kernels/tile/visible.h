// Visible keys. Causal, windows, chunks, left padding and length leave one interval of keys a query; a boolean mask
// punches holes. Both ends never decrease with the query's position, so a tile's interval follows from its first and
// last row. Positions and window sizes saturate far outside 32 bits, where no key is.
#pragma once

#include "base/config.h"
#include "base/params.h"
#include "tile/sequence.h"

namespace regard::cuda {

// [begin, end) in keys counted from leftpad (j'); empty: begin >= end.
struct KeyRange {
  i32 begin = 0, end = 0;
};

REGARD_DEVICE i64 FloorToMultiple(i64 x, i64 c) {
  const i64 rest = x % c;
  return x - (rest < 0 ? rest + c : rest);
}

// Keys of query i of a sequence.
REGARD_DEVICE KeyRange VisibleKeys(const Options& o, const Sequence& s, i64 i) {
  const i64 p = i + s.q_offset - s.leftpad;  // position, counted as j' is
  const i64 keys = s.seq_kv - s.leftpad;
  const i64 far = static_cast<i64>(1) << 40;
  i64 begin = 0, end = keys;
  if (o.causal) end = Min(end, p + 1);
  if (o.window_left >= 0) begin = Max(begin, p - Min(o.window_left, far));
  if (o.window_right >= 0) end = Min(end, p + Min(o.window_right, far) + 1);
  if (o.chunk > 0) {
    const i64 chunk = Min(o.chunk, far), first = FloorToMultiple(p, chunk);
    begin = Max(begin, first);
    end = Min(end, first + chunk);
  }
  begin = Min(begin, keys);
  end = Max(end, static_cast<i64>(0));
  return {static_cast<i32>(begin), static_cast<i32>(end)};
}

// Splits that hold a block of the keys [begin, end); none: begin == end.
struct SplitRange {
  i32 begin = 0, end = 0;
};
REGARD_DEVICE SplitRange SplitsOf(KeyRange keys) {
  if (keys.begin >= keys.end) return {};
  return {keys.begin / kSplitKeys, (keys.end - 1) / kSplitKeys + 1};
}

}  // namespace regard::cuda
