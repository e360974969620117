// Lengths and row numbers of a call, sequence by sequence, once the views are known to be sound: cu_seqlens in order,
// used lengths inside the owned ones, all sources of a length in agreement, rows and plan bounds kept. Everything a
// kernel derives from a Sequence (row ranges, rotary positions, bias indices) is then inside its tensor; page numbers
// follow in check_tables.cc. q_offset may be any i32: i + q_offset and the window around it fit 64 bits.
#include <algorithm>
#include <string>

#include "regard/status.h"
#include "src/problem/checks.h"

namespace regard::checks {
namespace {

std::string Text(std::int64_t v) {
  return std::to_string(v);
}

// cu[0] = 0, non-decreasing, cu[n] <= limit.
void CheckCumulative(const char* name, const std::optional<TensorView>& t, std::int64_t limit, const char* what) {
  if (!t) return;
  const std::int32_t* cu = Ints(t);
  const std::int64_t n = t->shape[0] - 1;
  if (cu[0] != 0) throw Error(At(name, 0), Text(cu[0]), "0");
  for (std::int64_t b = 1; b <= n; ++b) {
    if (cu[b] < cu[b - 1]) {
      throw Error(At(name, b), Text(cu[b]), "at least " + Text(cu[b - 1]) + ", the entry before: it never decreases");
    }
  }
  if (cu[n] > limit) throw Error(At(name, n), Text(cu[n]), "at most " + Text(limit) + " (" + what + ")");
}

void CheckNotNegative(const char* name, const std::optional<TensorView>& t) {
  if (!t) return;
  const std::int32_t* values = Ints(t);
  for (std::int64_t b = 0; b < t->shape[0]; ++b) {
    if (values[b] < 0) throw Error(At(name, b), Text(values[b]), "at least 0");
  }
}

// The tensor that the used key lengths come from.
const char* LengthSource(const AttentionArgs& a) {
  if (a.cache_seqlens) return "cache_seqlens";
  if (a.seqlens_kv) return "seqlens_kv";
  if (a.seqused_kv) return "seqused_kv";
  if (a.kv_indptr) return "kv_last_page_len";
  return a.cu_seqlens_kv ? "cu_seqlens_kv" : nullptr;
}

std::string LengthField(const AttentionArgs& a, std::int64_t b) {
  const char* source = LengthSource(a);
  if (!source) return "k.shape[1]";
  return At(source, a.cu_seqlens_kv && std::string(source) == "cu_seqlens_kv" ? b + 1 : b);
}

std::string LengthText(const Sequence& s) {
  return s.append_count > 0 ? Text(s.append_begin) + " + " + Text(s.append_count) + " new tokens" : Text(s.seq_kv);
}

// A second source of the length that disagrees with the first.
void CheckAgrees(const char* name, const std::optional<TensorView>& t, const AttentionArgs& a, const Sequence& s,
                 std::int64_t b) {
  if (!t || Ints(t)[b] == s.seq_kv) return;
  throw Error(At(name, b), Text(Ints(t)[b]), Text(s.seq_kv) + ", as " + LengthField(a, b) + " gives");
}

void CheckCsr(const AttentionArgs& a, const Sequence& s, std::int64_t b, std::int64_t page_size) {
  const std::int64_t pages = std::int64_t{Ints(a.kv_indptr)[b + 1]} - Ints(a.kv_indptr)[b];
  const std::int64_t last = Ints(a.kv_last_page_len)[b];
  if (pages > 0 && (last < 1 || last > page_size)) {
    throw Error(At("kv_last_page_len", b), Text(last), "1 to " + Text(page_size) + " (page_size)");
  }
  const std::int64_t keys = pages > 0 ? (pages - 1) * page_size + last : 0;
  if (s.seq_kv != keys) {
    throw Error(LengthField(a, b), LengthText(s),
                Text(keys) + " keys, as kv_indptr and kv_last_page_len give: " + Text(pages) + " pages");
  }
}

// The keys fit into what the sequence owns: cache row, packed rows, or columns of the block table.
void CheckCapacity(const Problem& p, const AttentionArgs& a, const Sequence& s, std::int64_t b) {
  if (s.seq_kv > p.seq_kv) {
    throw Error(LengthField(a, b), LengthText(s), "at most " + Text(p.seq_kv) + " keys (the plan's seq_kv)");
  }
  if (!p.page_size) {
    const std::int64_t owned = p.varlen ? std::int64_t{Ints(a.cu_seqlens_kv)[b + 1]} - s.kv_row : a.k.shape[1];
    if (s.seq_kv <= owned) return;
    throw Error(LengthField(a, b), LengthText(s),
                "at most " + Text(owned) + (p.varlen ? " rows between its cu_seqlens_kv" : " (k.shape[1])"));
  }
  if (s.seq_kv > INT32_MAX) throw Error(LengthField(a, b), LengthText(s), "at most 2^31 - 1 keys in pages");
  if (p.table == TableKind::kCsr) return;
  const std::int64_t columns = a.block_table->shape[1];
  if ((s.seq_kv + *p.page_size - 1) / *p.page_size <= columns) return;
  throw Error(LengthField(a, b), LengthText(s),
              "at most " + Text(columns * *p.page_size) + " keys: block_table has " + Text(columns) +
                  " columns, page_size is " + Text(*p.page_size));
}

void CheckRotary(const Problem& p, const AttentionArgs& a, const Sequence& s, std::int64_t b) {
  const AttentionOptions& o = p.options;
  // q row i turns at base + i, or every q at base where no option looks at positions.
  const bool by_row = o.causal || o.window_left || o.window_right || o.chunk;
  const std::int64_t q_positions = by_row ? s.seq_q : std::min<std::int64_t>(s.seq_q, 1);
  const std::int64_t end = s.rotary_base + std::max(q_positions, s.append_count);
  if (std::max(q_positions, s.append_count) == 0 || end <= a.rotary_cos->shape[0]) return;
  throw Error("rotary_cos.shape[0]", Text(a.rotary_cos->shape[0]),
              "at least " + Text(end) + " positions, which sequence " + Text(b) + " reaches");
}

void CheckBroadcastLength(const char* name, const std::optional<TensorView>& t, int dim, std::int64_t longest,
                          const char* what) {
  if (!t || t->shape[dim] == 1 || t->shape[dim] >= longest) return;
  throw Error(At((std::string(name) + ".shape").c_str(), dim), Text(t->shape[dim]),
              "1 or at least " + Text(longest) + " (longest " + what + ")");
}

}  // namespace

void CheckSequences(const Problem& p, const AttentionArgs& a, std::span<const Sequence> sequences) {
  CheckCumulative("cu_seqlens_q", a.cu_seqlens_q, a.q.shape[0], "rows of q");
  CheckCumulative("cu_seqlens_kv", a.cu_seqlens_kv, a.k.shape[0], "rows of k");
  if (a.kv_indptr) CheckCumulative("kv_indptr", a.kv_indptr, a.kv_indices->shape[0], "entries of kv_indices");
  if (a.k_new) CheckCumulative("cu_seqlens_new", a.cu_seqlens_new, a.k_new->shape[0], "rows of k_new");
  CheckNotNegative("cache_seqlens", a.cache_seqlens);
  CheckNotNegative("seqlens_kv", a.seqlens_kv);
  CheckNotNegative("seqused_kv", a.seqused_kv);
  CheckNotNegative("rotary_seqlens", a.rotary_seqlens);

  const std::int64_t cache_rows = a.block_table ? a.block_table->shape[0] : a.k.shape[0];
  std::int64_t longest_q = 0, longest_kv = 0;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& s = sequences[i];
    const auto b = static_cast<std::int64_t>(i);
    if (s.rows > p.seq_q) {
      throw Error(p.varlen ? At("cu_seqlens_q", b + 1) : "q.shape[1]", Text(s.rows) + " rows",
                  "at most " + Text(p.seq_q) + " (the plan's seq_q)");
    }
    if (s.seq_q < 0 || s.seq_q > s.rows) {
      throw Error(At("seqused_q", b), Text(s.seq_q), "0 to " + Text(s.rows) + ", the rows that it owns");
    }
    if (s.append_count > p.append.value_or(0)) {
      throw Error(At("cu_seqlens_new", b + 1), Text(s.append_count) + " tokens",
                  "at most " + Text(*p.append) + " (the plan's append)");
    }
    if (a.cache_batch_idx && (s.kv_row < 0 || s.kv_row >= cache_rows)) {
      throw Error(At("cache_batch_idx", b), Text(s.kv_row),
                  "0 to " + Text(cache_rows - 1) + (a.block_table ? ", a row of block_table" : ", a row of k"));
    }
    if (p.page_size && p.table == TableKind::kCsr) CheckCsr(a, s, b, *p.page_size);
    CheckAgrees("seqlens_kv", a.seqlens_kv, a, s, b);
    CheckAgrees("seqused_kv", a.seqused_kv, a, s, b);
    CheckCapacity(p, a, s, b);
    if (s.leftpad < 0 || s.leftpad > s.seq_kv) {
      throw Error(At("leftpad", b), Text(s.leftpad), "0 to " + Text(s.seq_kv) + ", the keys of the sequence");
    }
    if (a.rotary_cos) CheckRotary(p, a, s, b);
    longest_q = std::max(longest_q, s.seq_q);
    longest_kv = std::max(longest_kv, s.seq_kv);
  }
  CheckBroadcastLength("bias", a.bias, 2, longest_q, "queries");
  CheckBroadcastLength("bias", a.bias, 3, longest_kv, "keys");
  CheckBroadcastLength("mask", a.mask, 2, longest_q, "queries");
  CheckBroadcastLength("mask", a.mask, 3, longest_kv, "keys");
}

}  // namespace regard::checks
