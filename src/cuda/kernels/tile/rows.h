// The query rows of a tile, what each sees, and where its results go. A tile's rows are (position, head of the group),
// numbered through: row r0 + r stands for position (r0 + r) / group. Packing a group this way lets one block of keys serve
// all its heads.
#pragma once

#include "base/config.h"
#include "tile/score.h"
#include "tile/visible.h"

namespace regard::cuda {

// One tile of work: rows [r0, r0 + rows) of a sequence and a kv head, and the keys that any of them sees (j').
struct Task {
  Sequence s;
  i32 kv_head = 0;
  i64 r0 = 0;
  i64 rows_end = 0;      // rows * group: those that the sequence owns
  KeyRange any;          // seen by some row
  KeyRange all;          // seen by every row
  bool owned = false;    // some row of the tile belongs to the sequence
};

REGARD_DEVICE Task MakeTask(const ForwardParams& p, int tile_rows, int b, int kv_head, int row_tile) {
  Task task;
  u32 error = 0;
  task.s = ResolveSequence(p.shape, p.cache, b, error);
  MarkError(p.shape, error);
  task.kv_head = kv_head;
  task.r0 = static_cast<i64>(row_tile) * tile_rows;
  task.rows_end = static_cast<i64>(task.s.rows) * p.shape.group;
  task.owned = task.r0 < task.rows_end;
  const i64 first = task.r0 / p.shape.group;
  const i64 last = Min((task.r0 + tile_rows - 1) / p.shape.group, static_cast<i64>(task.s.seq_q) - 1);
  if (first <= last) {
    const KeyRange low = VisibleKeys(p.options, task.s, first), high = VisibleKeys(p.options, task.s, last);
    task.any = {low.begin, high.end};
    // Rows past the last query see nothing: their sums stay 0, so that they can be written like the others.
    const bool queries_only = (task.r0 + tile_rows - 1) / p.shape.group < task.s.seq_q;
    if (queries_only || task.s.seq_q == task.s.rows) task.all = {high.begin, low.end};
  }
  return task;
}

// One query row.
struct Row {
  KeyRange keys;         // seen, but for the mask; empty for a row past seq_q
  QueryRow query;
  bool owned = false;    // it is written
  bool used = false;     // it is a query; else it is written as 0 and -inf
};

REGARD_DEVICE Row MakeRow(const ForwardParams& p, const Task& task, int r) {
  const i64 at = task.r0 + r, i = at / p.shape.group;
  Row row;
  row.owned = at < task.rows_end;
  row.used = i < task.s.seq_q;
  row.query.b = task.s.b;
  row.query.head = task.kv_head * p.shape.group + static_cast<i32>(at - i * p.shape.group);
  row.query.i = i;
  row.query.position = i + task.s.q_offset;
  if (row.used) {
    row.keys = VisibleKeys(p.options, task.s, i);
    row.query.slope = SlopeOf(p.options, task.s.b, row.query.head);
  }
  return row;
}

// The rows of a tile, worked out once by its threads and kept in shared memory: registers are dearer.
template <auto C>
struct RowTable {
  static constexpr u32 kOwned = 1u << 30, kUsed = 1u << 31;

  REGARD_DEVICE static Shared<Vec16> Entries() { return Shared<Vec16>(LayoutOf(C).rows); }

  REGARD_DEVICE static void Fill(const ForwardParams& p, const Task& task) {
    for (int r = ThreadIndex(); r < C.TileRows(); r += C.Threads()) {
      const i64 at = task.r0 + r, i = at / p.shape.group;
      u32 word = static_cast<u32>(task.kv_head * p.shape.group + (at - i * p.shape.group));
      KeyRange keys;
      if (i < task.s.seq_q) {
        keys = VisibleKeys(p.options, task.s, i);
        word |= kUsed;
      }
      if (at < task.rows_end) word |= kOwned;
      Entries().Store(r, Vec16{{static_cast<u32>(keys.begin), static_cast<u32>(keys.end), static_cast<u32>(i), word}});
    }
  }

  REGARD_DEVICE static KeyRange KeysOf(int r) {
    const Vec16 entry = Entries().Load(r);
    return {static_cast<i32>(entry.word[0]), static_cast<i32>(entry.word[1])};
  }

  REGARD_DEVICE static Row Of(const ForwardParams& p, const Task& task, int r) {
    const Vec16 entry = Entries().Load(r);
    Row row;
    row.keys = {static_cast<i32>(entry.word[0]), static_cast<i32>(entry.word[1])};
    row.owned = (entry.word[3] & kOwned) != 0;
    row.used = (entry.word[3] & kUsed) != 0;
    row.query.b = task.s.b;
    row.query.head = static_cast<i32>(entry.word[3] & ~(kOwned | kUsed));
    row.query.i = static_cast<i32>(entry.word[2]);
    row.query.position = row.query.i + task.s.q_offset;
    if (row.used) row.query.slope = SlopeOf(p.options, row.query.b, row.query.head);
    return row;
  }
};

REGARD_DEVICE i64 OutOffset(const ForwardParams& p, const Sequence& s, const QueryRow& row) {
  return QueryOffset(p.shape, s, p.out, row.i, row.head);
}
REGARD_DEVICE void StoreLse(const ForwardParams& p, const Sequence& s, const QueryRow& row, float lse) {
  if (p.lse == nullptr) return;
  const i64 at = (p.shape.packed_q ? s.q_row + row.i : row.b * p.lse_batch + row.i) + row.head * p.lse_head;
  Global<float>(p.lse).Store(at, lse);
}

// One element of out.
REGARD_COLD void StoreOut(const Rows& out, Element type, i64 at, float x) { StoreElement(out.data, type, at, x); }

// Columns at, at + 1 of an output row, rounded once: any type, any alignment.
REGARD_COLD void StoreColumns(const Rows& out, Element type, i64 offset, int at, int head_dim_v, float low, float high) {
  StoreElement(out.data, type, offset + at, low);
  if (at + 1 < head_dim_v) StoreElement(out.data, type, offset + at + 1, high);
}

// Whether pairs of columns lie on words: 16-bit out, everything even.
REGARD_DEVICE bool OutInPairs(const ForwardParams& p) {
  const u64 odd = static_cast<u64>(p.out.batch | p.out.row | p.out.head | p.shape.head_dim_v) & 1;
  return p.out_type != Element::kF32 && odd == 0 && (reinterpret_cast<u64>(p.out.data) & 3) == 0;
}

// A row of out as pairs of columns.
struct OutRow {
  const ForwardParams& p;
  i64 offset;
  bool in_pairs;
  Global<u32> pairs;  // where in_pairs

  REGARD_DEVICE OutRow(const ForwardParams& params, i64 at, bool as_pairs)
      : p(params), offset(at), in_pairs(as_pairs), pairs(static_cast<u32*>(params.out.data) + at / 2) {}
  // Columns at, at + 1; at is even.
  REGARD_DEVICE void Store(int at, float low, float high) const {
    if (at >= p.shape.head_dim_v) return;
    if (in_pairs) {
      pairs.Store(at / 2, p.out_type == Element::kF16 ? PackF16(low, high) : PackBF16(low, high));
    } else {
      StoreColumns(p.out, p.out_type, offset, at, p.shape.head_dim_v, low, high);
    }
  }
};

// out and lse of rows behind the last sequence of packed q: 0 and -inf. Spread over the whole grid.
REGARD_DEVICE void ClearUnowned(const ForwardParams& p, int threads) {
  if (!p.shape.packed_q) return;
  const i64 begin = EntryOf(p.shape.lengths.cu_seqlens_q, p.shape.batch);
  if (begin < 0 || begin > p.shape.total_q) return;
  const i64 rows = (p.shape.total_q - begin) * p.shape.heads_q;
  for (i64 at = static_cast<i64>(BlockX()) * threads + ThreadIndex(); at < rows; at += static_cast<i64>(GridX()) * threads) {
    QueryRow row;
    row.i = begin + at / p.shape.heads_q;
    row.head = static_cast<int>(at % p.shape.heads_q);
    const i64 offset = OutOffset(p, Sequence{}, row);
    for (int d = 0; d < p.shape.head_dim_v; ++d) StoreElement(p.out.data, p.out_type, offset + d, 0);
    StoreLse(p, Sequence{}, row, -Infinity());
  }
}

}  // namespace regard::cuda
