// From the tensors of a call to one Sequence per batch entry. The used lengths follow docs/semantics.md: seqused_q or
// the owned rows for queries; for keys cache_seqlens + new tokens, else seqlens_kv, seqused_kv, the CSR page list, and
// last the owned rows. Sources that are given together agree (check_tables.cc sees to it), so their order decides
// nothing.
#include <string>

#include "regard/status.h"
#include "src/problem/checks.h"

namespace regard {
namespace checks {

void FillSequences(const Problem& bounds, const AttentionArgs& args, std::span<Sequence> sequences) noexcept {
  const std::int32_t* cu_q = Ints(args.cu_seqlens_q);
  const std::int32_t* cu_kv = Ints(args.cu_seqlens_kv);
  const std::int32_t* cu_new = Ints(args.cu_seqlens_new);
  const std::int32_t* used_q = Ints(args.seqused_q);
  const std::int32_t* used_kv = Ints(args.seqused_kv);
  const std::int32_t* lens_kv = Ints(args.seqlens_kv);
  const std::int32_t* cached = Ints(args.cache_seqlens);
  const std::int32_t* row_of = Ints(args.cache_batch_idx);
  const std::int32_t* indptr = Ints(args.kv_indptr);
  const std::int32_t* last_len = Ints(args.kv_last_page_len);
  const std::int32_t* offsets = Ints(args.q_offset);
  const std::int32_t* leftpads = Ints(args.leftpad);
  const std::int32_t* rotary = Ints(args.rotary_seqlens);
  const bool packed_kv = bounds.varlen && !bounds.page_size;
  const bool csr = bounds.page_size && bounds.table == TableKind::kCsr;

  for (std::size_t b = 0; b < sequences.size(); ++b) {
    Sequence s;
    s.q_row = cu_q ? cu_q[b] : 0;
    s.rows = cu_q ? std::int64_t{cu_q[b + 1]} - cu_q[b] : args.q.shape[1];
    s.seq_q = used_q ? used_q[b] : s.rows;

    if (args.k_new) {
      s.new_row = cu_new ? cu_new[b] : 0;
      s.append_count = cu_new ? std::int64_t{cu_new[b + 1]} - cu_new[b] : args.k_new->shape[1];
      s.append_begin = cached[b];
      s.rotary_base = rotary ? rotary[b] : cached[b];
    }

    if (packed_kv) {
      s.kv_row = cu_kv[b];
    } else if (csr) {
      s.kv_row = indptr[b];
    } else {
      s.kv_row = row_of ? row_of[b] : static_cast<std::int64_t>(b);
    }
    if (cached) {
      s.seq_kv = cached[b] + s.append_count;
    } else if (lens_kv) {
      s.seq_kv = lens_kv[b];
    } else if (used_kv) {
      s.seq_kv = used_kv[b];
    } else if (csr) {
      const std::int64_t pages = std::int64_t{indptr[b + 1]} - indptr[b];
      s.seq_kv = pages > 0 ? (pages - 1) * *bounds.page_size + last_len[b] : 0;
    } else {
      s.seq_kv = packed_kv ? std::int64_t{cu_kv[b + 1]} - cu_kv[b] : args.k.shape[1];
    }
    s.leftpad = leftpads ? leftpads[b] : 0;
    s.q_offset = offsets ? offsets[b] : s.seq_kv - s.seq_q;
    sequences[b] = s;
  }
}

std::string At(const char* name, std::int64_t i) {
  return std::string(name) + "[" + std::to_string(i) + "]";
}

std::string At(const char* name, std::int64_t i, std::int64_t j) {
  return At(name, i) + "[" + std::to_string(j) + "]";
}

}  // namespace checks

std::int64_t BatchOf(const AttentionArgs& args) noexcept {
  return args.cu_seqlens_q ? args.cu_seqlens_q->shape[0] - 1 : args.q.shape[0];
}

std::size_t ResolveScratchBytes(const Problem& bounds) {
  const std::int64_t longest = bounds.append.value_or(0);
  if (longest <= 0 || bounds.batch <= 0) return 0;
  // n tokens that begin anywhere in a page lie in at most 1 + ceil((n - 1) / page_size) pages.
  std::int64_t runs = 1;
  if (bounds.page_size) runs += (longest - 1) / *bounds.page_size + ((longest - 1) % *bounds.page_size != 0);
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(runs, bounds.batch, &runs) ||
      __builtin_mul_overflow(runs, std::int64_t{sizeof(checks::SlotRun)}, &bytes) ||
      __builtin_add_overflow(bytes, std::int64_t{alignof(checks::SlotRun)}, &bytes)) {
    throw Error("append", std::to_string(longest) + " tokens in each of " + std::to_string(bounds.batch) + " sequences",
                "a number of slots that 64 bits can count");
  }
  return static_cast<std::size_t>(bytes);
}

namespace {

// What follows the checks of views.
void ResolveLengths(const Problem& bounds, const AttentionArgs& args, bool check, std::span<Sequence> sequences,
                    std::span<std::byte> scratch) {
  const auto batch = static_cast<std::size_t>(BatchOf(args));
  if (check && sequences.size() < batch) {
    throw Error("sequences", std::to_string(sequences.size()), "at least " + std::to_string(batch) + " (B)");
  }
  const std::span<Sequence> filled = sequences.first(batch);
  checks::FillSequences(bounds, args, filled);
  if (!check) return;
  checks::CheckSequences(bounds, args, filled);
  checks::CheckTables(bounds, args, filled, scratch);
}

}  // namespace

void ResolveArgs(const Problem& bounds, const AttentionArgs& args, bool check, std::span<Sequence> sequences,
                 std::span<std::byte> scratch) {
  if (check) checks::CheckViews(bounds, args);
  ResolveLengths(bounds, args, check, sequences, scratch);
}

void ResolveBackward(const Problem& bounds, const BackwardArgs& args, bool check, std::span<Sequence> sequences) {
  if (check) checks::CheckBackwardViews(bounds, args);
  ResolveLengths(bounds, args.forward, check, sequences, {});
}

}  // namespace regard
