// What the host hands to a kernel, by value. Every address is of the device; absent ones are null. Strides count
// elements. Lengths and tables may live in device memory that nobody has checked: tile/sequence.h checks each entry.
#pragma once

#include "base/types.h"

namespace regard::cuda {

// A tensor of rows: element 0 of row (b, i, h) is at data + b * batch + i * row + h * head.
struct Rows {
  void* data = nullptr;
  i64 batch = 0, row = 0, head = 0;
};

// A tensor that broadcasts: (b, h, i, j) is at data + b * stride[0] + ...; extents of 1 have stride 0. The other extents
// are at least those of the problem.
struct Map {
  const void* data = nullptr;
  i64 stride[4] = {};
  i32 extent[4] = {};
};

// Lengths of a call, one entry a sequence (docs/semantics.md names them); i32, absent: null.
struct Lengths {
  const i32* cu_seqlens_q = nullptr;
  const i32* cu_seqlens_kv = nullptr;
  const i32* cu_seqlens_new = nullptr;
  const i32* seqused_q = nullptr;
  const i32* seqused_kv = nullptr;
  const i32* seqlens_kv = nullptr;
  const i32* cache_seqlens = nullptr;
  const i32* cache_batch_idx = nullptr;
  const i32* q_offset = nullptr;
  const i32* leftpad = nullptr;
  const i32* rotary_seqlens = nullptr;
  const i32* kv_indptr = nullptr;         // CSR paging
  const i32* kv_last_page_len = nullptr;
};

// Keys and values. Dense: `kv_rows` rows of `row_capacity` keys. Packed: `total_kv` keys. Paged: `pages` pages of
// `page_size` slots, named by block_table (table_rows, table_pages), row stride table_stride, or by `indices` with
// kv_indptr, of which there are index_count.
struct Cache {
  Rows k, v;                              // batch: a row of the cache, or a page; row: a key, or a slot
  i32 paged = 0, packed = 0, csr = 0;
  i32 page_size = 1;
  i64 pages = 0, kv_rows = 0, row_capacity = 0, total_kv = 0;
  const i32* block_table = nullptr;
  i64 table_rows = 0, table_pages = 0, table_stride = 0;
  const i32* indices = nullptr;
  i64 index_count = 0;
};

// Bits of the sticky error word that kernels set where a table or a length is bad; such entries are skipped.
enum ErrorBit : u32 {
  kBadSeqlensQ = 1,        // cu_seqlens_q or seqused_q: order, range, or more rows than the plan's bound
  kBadSeqlensKv = 2,       // cu_seqlens_kv, seqused_kv, seqlens_kv, cache_seqlens: order, range, bound
  kBadPage = 4,            // block_table or kv_indices: no such page
  kBadCacheRow = 8,        // cache_batch_idx
  kBadIndptr = 16,         // kv_indptr or kv_last_page_len
  kBadLeftpad = 32,        // leftpad outside [0, seq_kv]
  kBadAppend = 64,         // an append that does not fit
  kBadRotary = 128,        // a rotary position outside the tables
};

struct Shape {
  i32 batch = 0, heads_q = 0, heads_kv = 0, group = 0;  // group = heads_q / heads_kv
  i32 head_dim = 0, head_dim_v = 0;
  i32 seq_q = 0, seq_kv = 0;                             // the plan's bounds: rows and keys of the longest sequence
  i32 packed_q = 0;
  i64 total_q = 0;                                       // rows of packed q; dense: rows of one batch entry
  // New tokens that an append has put, or will put, behind cache_seqlens.
  i32 append = 0;                                        // the plan's bound; 0: no append
  i32 packed_new = 0;                                    // k_new is packed, by cu_seqlens_new
  i64 total_new = 0;                                     // rows of packed k_new; dense: rows of one batch entry
  Lengths lengths;
  u32* error = nullptr;                                  // the sticky error word
};

// Options of docs/semantics.md, in its order.
struct Options {
  float scale = 1;                        // of the dot product
  float softcap = 0;                      // 0: none
  i32 causal = 0;
  i64 window_left = -1, window_right = -1;  // < 0: none
  i64 chunk = 0;                          // 0: none
  const float* alibi = nullptr;           // slope of (b, h) at b * alibi_batch + h
  i64 alibi_batch = 0;
  Map bias;                               // element type bias_type
  Element bias_type = Element::kF32;
  Map mask;                               // bytes; nonzero: visible
  const void* sink = nullptr;             // (heads_q), sink_type
  Element sink_type = Element::kF32;
  u32 dropout_threshold = 0;              // kept iff word >= threshold; used where dropout is set
  i32 dropout = 0;                        // 0: none; 1: by the threshold; 2: everything dropped (p = 1)
  float dropout_scale = 1;                // 1 / (1 - p)
  u32 seed_low = 0, seed_high = 0;        // Philox key, the offset's high word xored in
  u32 dropout_offset = 0;                 // its low word
  const float* q_descale = nullptr;       // (batch, heads_kv) each
  const float* k_descale = nullptr;
  const float* v_descale = nullptr;
  i64 descale_batch = 0;                  // stride of b; that of the head is 1
};

struct ForwardParams {
  Shape shape;
  Options options;
  Cache cache;
  Rows q, out;
  Rows qv;
  float* lse = nullptr;                   // (b, h, i) at b * lse_batch + h * lse_head + i
  i64 lse_batch = 0, lse_head = 0;
  Element q_type = Element::kF32, kv_type = Element::kF32, out_type = Element::kF32;
  // Work: tiles of query rows, positions x group, a kv head and a sequence each; splits of keys.
  i32 row_tiles = 0;                      // tiles that the longest sequence needs
  i32 splits = 1;                         // splits that the longest sequence needs
  // f32 states. Prefill, where splits > 1: one slot of TileRows() * (padded head_dim_v + 2) a block of threads, for the
  // running fold. Decode, where splits > 1: one slot a ((b * heads_kv + kv head) * row_tiles + tile) * splits + split, of
  // 16 rows: 16 x padded head_dim_v sums, 16 maxima (of scores times log2 e), 16 sums of weights.
  float* states = nullptr;
};

// New keys and values into a cache, rotated on the way, and q rotated into `q_out`.
struct AppendParams {
  Shape shape;
  Cache cache;
  Rows k_new, v_new;                      // packed (cu_seqlens_new): batch 0
  Rows q, q_out;                          // with rotary; q_out is written in q's type
  Element type = Element::kF32, kv_type = Element::kF32;
  i32 rotary = 0;                         // 0: none; 1: interleaved pairs; 2: halves
  i32 rotary_dim = 0;
  i64 rotary_positions = 0;
  const void* cos = nullptr;              // (rotary_positions, rotary_dim / 2), rotary_type
  const void* sin = nullptr;
  Element rotary_type = Element::kF32;
  i32 q_turns = 0;                        // 1: q row i at base + i; 0: every q at base
  const float* k_descale = nullptr;       // (batch, heads_kv)
  const float* v_descale = nullptr;
  i64 descale_batch = 0;
};

// (o_a, l_a) + (o_b, l_b), rows of head_dim_v; out may be o_a.
struct MergeParams {
  Rows a, b, out;
  const float* lse_a = nullptr;
  const float* lse_b = nullptr;
  float* lse_out = nullptr;
  i64 lse_a_batch = 0, lse_a_head = 0, lse_b_batch = 0, lse_b_head = 0, lse_out_batch = 0, lse_out_head = 0;
  Element a_type = Element::kF32, b_type = Element::kF32, out_type = Element::kF32;
  i32 batch = 0, rows = 0, heads = 0, head_dim_v = 0;
};

struct BackwardParams {
  Shape shape;
  Options options;
  Rows q, k, v, out, dout;                // k and v dense or packed: row = key
  Rows dq, dk, dv;
  const float* lse = nullptr;
  const float* dlse = nullptr;            // strides of lse_*; null: none
  i64 lse_batch = 0, lse_head = 0, dlse_batch = 0, dlse_head = 0;
  Element type = Element::kF32, out_type = Element::kF32, dout_type = Element::kF32, grad_type = Element::kF32;
  i32 packed_kv = 0;
  i64 total_kv = 0;                       // rows of packed k; dense: keys of one batch entry
  float* delta = nullptr;                 // workspace: rowsum(dout * out) - dlse at ((b * heads_q + h) * seq_q + i)
  Map dbias;                              // data is written
  Element dbias_type = Element::kF32;
  float* dsink = nullptr;                 // (heads_q)
};

}  // namespace regard::cuda
