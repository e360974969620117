// A call resolved to plain per-sequence numbers: what validation leaves behind and every backend reads.
// Owns nothing; `Sequence` arrays live in the launch workspace.
#pragma once

#include <cstdint>
#include <span>

#include "regard/attention.h"
#include "regard/problem.h"

namespace regard {

// All of one batch entry. Lengths in tokens.
struct Sequence {
  std::int64_t q_row = 0;         // first row in packed q; 0 when dense (q is indexed by b)
  std::int64_t rows = 0;          // query rows it owns in q/out (cu_seqlens difference, or Sq)
  std::int64_t seq_q = 0;         // used ones: rows past it are written out = 0, lse = -inf
  std::int64_t seq_kv = 0;        // used keys, left padding and appended ones included
  std::int64_t q_offset = 0;      // p = i + q_offset
  std::int64_t leftpad = 0;       // keys j < leftpad are invisible
  std::int64_t kv_row = 0;        // dense: index into k's first dim; packed: first key row; paged block table: its row;
                                  // paged CSR: first entry in kv_indices
  std::int64_t append_begin = 0;  // first new position (cache_seqlens[b])
  std::int64_t append_count = 0;  // new tokens; 0 without append
  std::int64_t new_row = 0;       // first row in packed k_new; 0 when dense
  std::int64_t rotary_base = 0;
};

// Bytes of scratch that ResolveArgs needs for a batch (duplicate detection among appended slots).
std::size_t ResolveScratchBytes(const Problem& bounds);

// Checks `args` against `bounds` (docs/validation.md) and fills sequences[0, B). Reads only views and host tables;
// writes nothing else; allocates nothing unless it throws. `check` false skips every check (LaunchUnchecked).
// sequences.size() must be at least B.
void ResolveArgs(const Problem& bounds, const AttentionArgs& args, bool check, std::span<Sequence> sequences,
                 std::span<std::byte> scratch);

// The same for a backward call, whose problem has Phase::kBackward; it needs no scratch.
void ResolveBackward(const Problem& bounds, const BackwardArgs& args, bool check, std::span<Sequence> sequences);

// The number of batch entries of a call: rows of q, or cu_seqlens_q - 1.
std::int64_t BatchOf(const AttentionArgs& args) noexcept;

// Element offset of key j of sequence s in tensor `kv` (k or v), head 0; head h adds h * KvHeadStride.
// Valid for dense, packed and paged views that ResolveArgs accepted. Paged lengths come from i32 tables, so that j and
// page_size fit 32 bits and the division is a short one.
inline std::int64_t KvTokenOffset(const Problem& p, const AttentionArgs& args, const Sequence& s, const TensorView& kv,
                                  std::int64_t j) noexcept {
  if (p.page_size) {
    const std::int32_t* pages =
        p.table == TableKind::kCsr
            ? static_cast<const std::int32_t*>(args.kv_indices->data) + s.kv_row
            : static_cast<const std::int32_t*>(args.block_table->data) + s.kv_row * args.block_table->shape[1];
    const auto page_size = static_cast<std::uint32_t>(*p.page_size);
    const auto position = static_cast<std::uint32_t>(j);
    const std::int64_t slot_stride = kv.stride[p.layout == KvLayout::kNHD ? 1 : 2];
    return pages[position / page_size] * kv.stride[0] + position % page_size * slot_stride;
  }
  if (p.varlen) return (s.kv_row + j) * kv.stride[0];
  return s.kv_row * kv.stride[0] + j * kv.stride[1];
}

// Elements between two kv heads of one token.
inline std::int64_t KvHeadStride(const Problem& p, const TensorView& kv) noexcept {
  if (p.page_size) return kv.stride[p.layout == KvLayout::kNHD ? 2 : 1];
  return kv.stride[p.varlen ? 1 : 2];
}

}  // namespace regard
