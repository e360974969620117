// Where keys lie. Token offsets of a run of keys are worked out once (dense, packed, or page by page) and serve every
// head; heads add their stride.
#pragma once

#include "src/cpu/tile/math.h"

namespace regard::cpu::REGARD_ISA {

// Byte offsets of keys [j, j + n) of sequence s in `view`; j counts from the sequence's first slot, left padding
// included.
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

// The keys of a block that some row sees: [first, last) of it, first rounded down to a panel. first == last: none.
struct Block {
  int64_t start;            // j' of the block
  int first, last;
  bool ends_split;
};
struct BlockOffsets {
  int64_t k[kBlockTokens], v[kBlockTokens];
};

// The block from key `start` on where keys [lo, hi) are seen, and where its keys lie.
static Block BlockAt(const ForwardParams& p, const Seq& s, int64_t lo, int64_t hi, int64_t start,
                     BlockOffsets& offsets) {
  Block block{start, 0, 0, (start + p.block_tokens) % p.split_tokens == 0};
  if (start >= hi) return block;
  block.first = static_cast<int>(Max(lo - start, 0)) / kPanelKeys * kPanelKeys;
  block.last = static_cast<int>(Min(hi - start, p.block_tokens));
  const int64_t j = s.leftpad + start + block.first;
  const int n = block.last - block.first;
  TokenOffsets(p, s, p.k, j, n, offsets.k + block.first);
  TokenOffsets(p, s, p.v, j, n, offsets.v + block.first);
  return block;
}

// What decode reads next, fetched into L2 line by line in address order: whole token rows over all heads of a task
// where they lie side by side, which the hardware's own prefetcher follows too. The product loops call Next() at every
// step: a burst of prefetches would fill the core's miss buffers and stall it (Zen 4, bf16, 32k tokens, 1 thread:
// bursts 8.2 GB/s of the 22 that a plain read reaches).
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

// kTurnLines lines to fetch: line i is at base + offsets[kRunTokens * (i % kRuns)] + i / kRuns * step. A turn is at most
// two lines of each run.
inline constexpr int kRuns = 8, kRunTokens = kPanelKeys > kRuns ? kPanelKeys / kRuns : 1;
inline constexpr int kTurnLines = kRuns * (kRunTokens < 2 ? kRunTokens : 2);
struct Lines {
  const char* base;
  const int64_t* offsets;
  int64_t step;
};
REGARD_INLINE void Fetch(const Lines& lines, int i) {
  PrefetchFar(lines.base + lines.offsets[kRunTokens * (i % kRuns)] + i / kRuns * lines.step);
}

// What decode reads next: a panel of tokens, kTurnLines lines a turn, kRuns runs of kRunTokens tokens side by side, a
// line of each in turn: memory then answers more lines at once than along one run (Zen 4, one thread, 32k tokens of 8
// heads of 128: f32 24.0 against 21.5 GB/s in the order of addresses, bf16 22.7 against 22.4; more in pages at random).
// Other panels, and odd rows, go line after line.
struct PanelStream {
  LineStream single;
  const char* data;        // side by side: of the column to come, at token offset 0; null: by `single`
  const int64_t* offsets;  // of the token of each run to come
  const char* data_end;    // of the piece (all heads, or one)
  int tokens;              // of each run, left in this piece
  Lines turn;              // of Next
  int left;
};
static constexpr int64_t kNoOffsets[kRuns * kRunTokens] = {};
struct LineOffsets {
  int64_t at[kRuns * kRunTokens];
  constexpr LineOffsets() : at() {
    for (int i = 0; i < kRuns; ++i) at[kRunTokens * i] = 64 * i;
  }
};
static constexpr LineOffsets kLineOffsets;

static PanelStream PanelStreamOf(const LineStream& s) {
  PanelStream r{s, nullptr, nullptr, nullptr, 0, {}, 0};
  const bool whole = s.rows == kPanelKeys && kPanelKeys == kRuns * kRunTokens;
  if (!whole || s.piece_bytes % (kTurnLines / kRuns * 64) != 0) return r;
  r.data = s.data;
  r.data_end = s.data + s.piece_bytes;
  r.offsets = s.offsets;
  r.tokens = kRunTokens;
  return r;
}

[[gnu::noinline]] static Lines TakeSlowly(PanelStream& s) {
  const Lines nothing{reinterpret_cast<const char*>(&s), kNoOffsets, 0};  // costs nothing to fetch
  if (s.data) return nothing;
  if (s.single.at >= s.single.end && s.single.rows > 0) NextPiece(s.single);
  if (s.single.end - s.single.at < kTurnLines * 64) {
    for (int i = 0; i < kTurnLines; ++i) Next(s.single);
    return nothing;
  }
  const Lines lines{s.single.at, kLineOffsets.at, kRuns * 64};
  s.single.at += kTurnLines * 64;
  return lines;
}
// The next lines, for the caller to fetch one by one as it goes along.
REGARD_INLINE Lines Take(PanelStream& s) {
  if (s.tokens == 0) {
    if (s.single.end - s.single.at < kTurnLines * 64) return TakeSlowly(s);
    const Lines lines{s.single.at, kLineOffsets.at, kRuns * 64};
    s.single.at += kTurnLines * 64;
    return lines;
  }
  const Lines lines{s.data, s.offsets, 64};
  s.data += kTurnLines / kRuns * 64;
  if (s.data == s.data_end) {  // the next token of each run, or the next head
    s.data -= s.single.piece_bytes;
    ++s.offsets;
    if (--s.tokens == 0 && ++s.single.piece < s.single.pieces) {
      s.data += s.single.piece_stride;
      s.data_end += s.single.piece_stride;
      s.offsets -= kRunTokens;
      s.tokens = kRunTokens;
    }
  }
  return lines;
}
REGARD_INLINE void Next(PanelStream& s) {
  if (s.left == 0) {
    s.turn = Take(s);
    s.left = kTurnLines;
  }
  Fetch(s.turn, kTurnLines - s.left--);
}

// The lines of one row, into L2. Rows of a head often lie far apart, where no hardware looks ahead.
REGARD_INLINE void FetchRow(const char* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) PrefetchFar(row + i);
}

struct NoStream {};
REGARD_INLINE void Next(NoStream&) {}
REGARD_INLINE Lines Take(NoStream& s) { return {reinterpret_cast<const char*>(&s), kNoOffsets, 0}; }

}  // namespace regard::cpu::REGARD_ISA
