// The numbers of one sequence, from tables in device memory that nobody has checked. An entry that is out of order or
// range sets a bit of the sticky error word; what it would have named is then not read or written: bad query lengths own
// no row, bad key lengths have no key. The rules are those of the host's check (docs/validation.md).
#pragma once

#include "base/params.h"
#include "ptx/memory.h"
#include "ptx/thread.h"

namespace regard::cuda {

struct Sequence {
  i32 b = 0;
  i64 q_row = 0;         // first row in packed q; dense: 0
  i32 rows = 0;          // query rows it owns
  i32 seq_q = 0;         // used ones; the others are written 0
  i32 seq_kv = 0;        // keys, left padding and appended ones included
  i32 leftpad = 0;
  i64 q_offset = 0;      // position of row i: i + q_offset
  i64 kv_row = 0;        // dense: row of the cache; packed: first key; block table: its row; CSR: first entry
  i32 table_pages = 0;   // paged: pages that the sequence may name
  i64 owned_kv = 0;      // dense, packed: key rows that belong to it, used or not
  i32 append_begin = 0;  // first new position
  i32 append_count = 0;
  i64 new_row = 0;       // first row in packed k_new; dense: 0
};

REGARD_DEVICE i32 EntryOf(const i32* table, i64 i) { return Global<const i32>(table).Load(i); }

// Once a block of threads is enough: one thread writes.
REGARD_DEVICE void MarkError(const Shape& shape, u32 bits) {
  if (bits != 0 && ThreadIndex() == 0 && shape.error != nullptr) AtomicOr(Global<u32>(shape.error), 0, bits);
}

// Rows of the queries. Sets q_row, rows, seq_q.
REGARD_DEVICE u32 ResolveQueries(const Shape& shape, Sequence& s) {
  const Lengths& l = shape.lengths;
  i64 begin = 0, end = shape.total_q;
  if (shape.packed_q) {
    begin = EntryOf(l.cu_seqlens_q, s.b);
    end = EntryOf(l.cu_seqlens_q, s.b + 1);
    if (begin < 0 || end < begin || end > shape.total_q || (s.b == 0 && begin != 0)) return kBadSeqlensQ;
  }
  if (end - begin > shape.seq_q) return kBadSeqlensQ;
  s.q_row = begin;
  s.rows = static_cast<i32>(end - begin);
  s.seq_q = s.rows;
  if (l.seqused_q != nullptr) {
    const i32 used = EntryOf(l.seqused_q, s.b);
    if (used < 0 || used > s.rows) {
      s.seq_q = 0;
      return kBadSeqlensQ;
    }
    s.seq_q = used;
  }
  return 0;
}

// The new tokens of an append. Sets append_begin, append_count, new_row.
REGARD_DEVICE u32 ResolveAppend(const Shape& shape, Sequence& s) {
  const Lengths& l = shape.lengths;
  if (shape.append == 0) return 0;
  i64 begin = 0, end = shape.total_new;
  if (shape.packed_new) {
    begin = EntryOf(l.cu_seqlens_new, s.b);
    end = EntryOf(l.cu_seqlens_new, s.b + 1);
    if (begin < 0 || end < begin || end > shape.total_new || (s.b == 0 && begin != 0)) return kBadAppend;
  }
  const i32 cached = EntryOf(l.cache_seqlens, s.b);
  if (cached < 0 || end - begin > shape.append) return kBadAppend;
  s.append_begin = cached;
  s.append_count = static_cast<i32>(end - begin);
  s.new_row = begin;
  return 0;
}

// Where the keys lie and how many there are. Sets kv_row, table_pages, owned_kv, seq_kv.
REGARD_DEVICE u32 ResolveKeys(const Shape& shape, const Cache& cache, Sequence& s) {
  const Lengths& l = shape.lengths;
  i64 capacity = cache.row_capacity, keys = cache.row_capacity;
  if (cache.csr) {
    const i64 begin = EntryOf(l.kv_indptr, s.b), end = EntryOf(l.kv_indptr, s.b + 1);
    if (begin < 0 || end < begin || end > cache.index_count) return kBadIndptr;
    const i32 last = end > begin ? EntryOf(l.kv_last_page_len, s.b) : 0;
    if (end > begin && (last < 1 || last > cache.page_size)) return kBadIndptr;
    s.kv_row = begin;
    s.table_pages = static_cast<i32>(end - begin);
    keys = end > begin ? (end - begin - 1) * cache.page_size + last : 0;
    capacity = keys;
  } else if (cache.packed) {
    const i64 begin = EntryOf(l.cu_seqlens_kv, s.b), end = EntryOf(l.cu_seqlens_kv, s.b + 1);
    if (begin < 0 || end < begin || end > cache.total_kv) return kBadSeqlensKv;
    s.kv_row = begin;
    s.owned_kv = end - begin;
    keys = end - begin;
    capacity = keys;
  } else {
    s.kv_row = l.cache_batch_idx != nullptr ? EntryOf(l.cache_batch_idx, s.b) : s.b;
    if (s.kv_row < 0 || s.kv_row >= (cache.paged ? cache.table_rows : cache.kv_rows)) return kBadCacheRow;
    s.owned_kv = cache.row_capacity;
    if (cache.paged) {
      s.table_pages = static_cast<i32>(cache.table_pages);
      capacity = cache.table_pages * cache.page_size;
      keys = capacity;
    }
  }
  if (l.cache_seqlens != nullptr) {
    keys = static_cast<i64>(EntryOf(l.cache_seqlens, s.b)) + s.append_count;
  } else if (l.seqlens_kv != nullptr) {
    keys = EntryOf(l.seqlens_kv, s.b);
  } else if (l.seqused_kv != nullptr) {
    keys = EntryOf(l.seqused_kv, s.b);
  }
  if (keys < 0 || keys > capacity || keys > shape.seq_kv) return kBadSeqlensKv;
  s.seq_kv = static_cast<i32>(keys);
  return 0;
}

// Every number of sequence b; `error` collects what is bad. With a bad append or bad keys the sequence has no key.
REGARD_DEVICE Sequence ResolveSequence(const Shape& shape, const Cache& cache, int b, u32& error) {
  Sequence s;
  s.b = b;
  const u32 bad_queries = ResolveQueries(shape, s);
  const u32 bad_append = ResolveAppend(shape, s);
  const u32 bad_keys = bad_append == 0 ? ResolveKeys(shape, cache, s) : 0;
  error |= bad_queries | bad_append | bad_keys;
  if (bad_append != 0 || bad_keys != 0) s.append_count = 0;
  if (shape.lengths.leftpad != nullptr) {
    const i32 leftpad = EntryOf(shape.lengths.leftpad, b);
    if (leftpad < 0 || leftpad > s.seq_kv) {
      if (bad_keys == 0 && bad_append == 0) error |= kBadLeftpad;
      s.seq_kv = 0;
    } else {
      s.leftpad = leftpad;
    }
  }
  s.q_offset = shape.lengths.q_offset != nullptr ? EntryOf(shape.lengths.q_offset, b)
                                                  : static_cast<i64>(s.seq_kv) - s.seq_q;
  return s;
}

// Element offset of row i of the sequence and a head, in a tensor that lies as q does.
REGARD_DEVICE i64 QueryOffset(const Shape& shape, const Sequence& s, const Rows& rows, i64 i, i64 head) {
  return (shape.packed_q ? (s.q_row + i) * rows.row : s.b * rows.batch + i * rows.row) + head * rows.head;
}

}  // namespace regard::cuda
