// Where keys lie. Token offsets of a run of keys are worked out once (dense, packed, or page by page) and serve every
// head; heads add their stride.
#pragma once

#include "src/cpu/tile/math.h"

namespace regard::cpu::REGARD_ISA {

// Byte offsets of keys [j, j + n) of sequence s in `view`; j counts from the sequence's first slot, left padding included.
static void TokenOffsets(const ForwardParams& p, const Seq& s, const KvView& view, int64_t j, int n, int64_t* offsets) {
  if (p.kv_kind != KvKind::kPaged) {
    const bool packed = p.kv_kind == KvKind::kPacked;
    const int64_t token = packed ? view.stride0 : view.token_stride;
    int64_t at = s.kv_row * view.stride0 + j * token;
    for (int t = 0; t < n; ++t, at += token) offsets[t] = at;
    return;
  }
  const int32_t* pages = p.table + s.kv_row * p.table_stride;
  int64_t page = j / p.page_size, slot = j % p.page_size;
  for (int t = 0; t < n; ++page, slot = 0) {
    int64_t at = pages[page] * view.stride0 + slot * view.token_stride;
    for (; slot < p.page_size && t < n; ++slot, ++t, at += view.token_stride) offsets[t] = at;
  }
}

// What decode reads next, fetched into L2 line by line in address order: whole token rows over all heads of a task
// where they lie side by side, which the hardware's own prefetcher follows too. The product loops call Next() at every
// step: a burst of prefetches would fill the core's miss buffers and stall it (Zen 4, bf16, 32k tokens, 1 thread: bursts
// 8.2 GB/s of the 22 that a plain read reaches).
struct LineStream {
  const char* at;          // next line
  const char* end;         // of the piece at hand
  const char* data;        // the task's first head at token offset 0
  const int64_t* offsets;  // of the rows to come
  int rows;                // left
  int pieces, piece;       // per row
  int64_t piece_stride, piece_bytes;
};

static LineStream StreamOf(const char* data, const int64_t* offsets, int rows, int heads, int64_t head_stride,
                           int64_t head_bytes) {
  const bool whole = head_stride == head_bytes;
  return {nullptr,  nullptr,          data, offsets, rows, whole ? 1 : heads, 0, head_stride,
          whole ? heads * head_bytes : head_bytes};
}

[[gnu::noinline]] static void NextPiece(LineStream& s) {
  if (s.rows == 0) return;
  s.at = s.data + *s.offsets + s.piece * s.piece_stride;
  s.end = s.at + s.piece_bytes;
  if (++s.piece < s.pieces) return;
  s.piece = 0;
  ++s.offsets;
  --s.rows;
}

REGARD_INLINE void Next(LineStream& s) {
  if (s.at >= s.end) {
    if (s.rows == 0) return;
    NextPiece(s);
  }
  PrefetchFar(s.at);
  s.at += 64;
}

struct NoStream {};
REGARD_INLINE void Next(NoStream&) {}

}  // namespace regard::cpu::REGARD_ISA
