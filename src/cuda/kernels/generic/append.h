// New tokens into a KV cache, keys rotated on the way, and queries rotated into a tensor of their own: one warp a row.
// Rotary (Su et al., RoFormer, 2021): x1' = x1 cos - x2 sin, x2' = x2 cos + x1 sin, products and sums rounded apart in
// f32, then once to the element type. A token of another type than the cache is divided by the cache's descale; one that
// comes in the cache's own type is in its units already. A token whose page does not exist, or whose angle is not in the
// tables, is not written, and the error word says so.
#pragma once

#include "base/kernel.h"
#include "tile/kv_gather.h"
#include "tile/score.h"

namespace regard::cuda::generic {

inline constexpr int kAppendThreads = 128;

// A row of `dim` elements, rotated by the angles of `position`.
struct RotatedRow {
  const AppendParams& p;
  const void* data;      // of type p.type
  i64 offset;
  i32 rotary_dim;        // 0: not rotated
  i64 position;

  REGARD_DEVICE float Input(int d) const { return LoadElement(data, p.type, offset + d); }
  REGARD_DEVICE float At(int d) const {
    if (d >= rotary_dim) return Input(d);
    const int pairs = rotary_dim / 2;
    const bool interleaved = p.rotary == 1;
    const int pair = interleaved ? d / 2 : d % pairs;
    const bool second = interleaved ? d % 2 == 1 : d >= pairs;
    const int other = interleaved ? d ^ 1 : second ? d - pairs : d + pairs;
    const float cos = LoadElement(p.cos, p.rotary_type, position * pairs + pair);
    const float sin = LoadElement(p.sin, p.rotary_type, position * pairs + pair);
    const float a = Input(d) * cos, b = Input(other) * sin;
    return second ? a + b : a - b;
  }
};

// Type p.type to `type`; the same type and no rotation copies bits.
REGARD_DEVICE void StoreRow(const AppendParams& p, const RotatedRow& row, int dim, void* to, i64 offset, Element type,
                            float divisor) {
  const bool copies = row.rotary_dim == 0 && type == p.type;
  for (int d = Lane(); d < dim; d += 32) {
    if (copies && SizeOf(type) == 1) {
      Global<u8>(static_cast<u8*>(to)).Store(offset + d, Global<const u8>(static_cast<const u8*>(row.data)).Load(row.offset + d));
    } else if (copies && SizeOf(type) == 2) {
      Global<u16>(static_cast<u16*>(to)).Store(offset + d, Global<const u16>(static_cast<const u16*>(row.data)).Load(row.offset + d));
    } else if (copies) {
      Global<u32>(static_cast<u32*>(to)).Store(offset + d, Global<const u32>(static_cast<const u32*>(row.data)).Load(row.offset + d));
    } else {
      const float x = row.At(d);
      StoreElement(to, type, offset + d, divisor == 1.0f ? x : Divide(x, divisor));
    }
  }
}

REGARD_DEVICE i64 RotaryBase(const AppendParams& p, const Sequence& s) {
  const Lengths& l = p.shape.lengths;
  return EntryOf(l.rotary_seqlens != nullptr ? l.rotary_seqlens : l.cache_seqlens, s.b);
}
REGARD_DEVICE bool HasAngle(const AppendParams& p, i64 position) {
  return p.rotary == 0 || (position >= 0 && position < p.rotary_positions);
}

// Token t of sequence s and a kv head.
REGARD_DEVICE u32 AppendToken(const AppendParams& p, const Sequence& s, int t, int head) {
  const i64 position = p.rotary != 0 ? RotaryBase(p, s) + t : 0;
  if (!HasAngle(p, position)) return kBadRotary;
  const Place place = PlaceOfKey(p.cache, s, s.append_begin + t);
  if (place.page < 0) return kBadPage;
  const auto offset_new = [&](const Rows& rows) {
    return (p.shape.packed_new ? (s.new_row + t) * rows.row : s.b * rows.batch + t * rows.row) + head * rows.head;
  };
  const bool divides = p.kv_type != p.type;
  const i64 at = s.b * p.descale_batch + head;
  const float k_divisor = divides && p.k_descale != nullptr ? Global<const float>(p.k_descale).Load(at) : 1.0f;
  const float v_divisor = divides && p.v_descale != nullptr ? Global<const float>(p.v_descale).Load(at) : 1.0f;
  const RotatedRow k{p, p.k_new.data, offset_new(p.k_new), p.rotary != 0 ? p.rotary_dim : 0, position};
  const RotatedRow v{p, p.v_new.data, offset_new(p.v_new), 0, 0};
  StoreRow(p, k, p.shape.head_dim, p.cache.k.data, OffsetOf(p.cache.k, place, head), p.kv_type, k_divisor);
  StoreRow(p, v, p.shape.head_dim_v, p.cache.v.data, OffsetOf(p.cache.v, place, head), p.kv_type, v_divisor);
  return 0;
}

// Row i of sequence s and a query head.
REGARD_DEVICE u32 RotateQuery(const AppendParams& p, const Sequence& s, int i, int head) {
  const i64 position = RotaryBase(p, s) + (p.q_turns ? i : 0);
  if (!HasAngle(p, position)) return kBadRotary;
  const RotatedRow row{p, p.q.data, QueryOffset(p.shape, s, p.q, i, head), p.rotary_dim, position};
  StoreRow(p, row, p.shape.head_dim, p.q_out.data, QueryOffset(p.shape, s, p.q_out, i, head), p.type, 1.0f);
  return 0;
}

// Warps take the tokens' rows first, then those of the queries: (sequence, row, head), as the plan bounds them.
REGARD_DEVICE void AppendKernel(const AppendParams& p) {
  const i64 tokens = static_cast<i64>(p.shape.batch) * p.shape.append * p.shape.heads_kv;
  const i64 queries = p.rotary != 0 ? static_cast<i64>(p.shape.batch) * p.shape.seq_q * p.shape.heads_q : 0;
  const i64 warps = static_cast<i64>(GridX()) * (kAppendThreads / 32);
  u32 error = 0;
  for (i64 at = static_cast<i64>(BlockX()) * (kAppendThreads / 32) + Warp(); at < tokens + queries; at += warps) {
    const bool token = at < tokens;
    const i64 rest = token ? at : at - tokens;
    const int heads = token ? p.shape.heads_kv : p.shape.heads_q, rows = token ? p.shape.append : p.shape.seq_q;
    const int head = static_cast<int>(rest % heads), row = static_cast<int>(rest / heads % rows);
    const Sequence s = ResolveSequence(p.shape, p.cache, static_cast<int>(rest / heads / rows), error);
    if (token && row < s.append_count) error |= AppendToken(p, s, row, head);
    if (!token && row < s.seq_q) error |= RotateQuery(p, s, row, head);
  }
  if (error != 0 && Lane() == 0 && p.shape.error != nullptr) AtomicOr(Global<u32>(p.shape.error), 0, error);
}

}  // namespace regard::cuda::generic
