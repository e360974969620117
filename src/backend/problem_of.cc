// ProblemOf: the exact problem of a call. It runs before validation, so it reads nothing that it has not looked at: ranks,
// element types, addresses and extents of the few tables that it needs. Tables on a GPU are not read: shapes and the
// caller's max_seqlen_* bound the lengths in them. A length beyond what its tensor holds is refused
// here, since a plan (and its workspace) would be made for it; every finer rule is left to the checks of Launch.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "regard/attention.h"
#include "regard/status.h"
#include "src/problem/phase.h"
#include "src/problem/sequence.h"

namespace regard {
namespace {

void RequireRank(const char* field, const TensorView& t, int rank, const char* shape) {
  if (t.rank != rank) throw Error(field, t.Describe(), "rank " + std::to_string(rank) + ", " + shape);
  for (int d = 0; d < rank; ++d) {
    if (t.shape[static_cast<std::size_t>(d)] < 0) throw Error(field, t.Describe(), "no negative extent");
  }
}

// Lengths of the sequences of a call: a contiguous host table of i32, one entry each, or cumulative with one more.
class Lengths {
 public:
  Lengths() = default;
  Lengths(const char* field, const std::optional<TensorView>& t, std::int64_t n, bool cumulative)
      : field_(field), given_(t.has_value()), cumulative_(cumulative) {
    if (!t) return;
    const std::int64_t entries = n + (cumulative ? 1 : 0);
    if (t->rank != 1 || t->dtype != DType::kI32 || t->device.type != DeviceType::kCpu || t->shape[0] < entries ||
        !t->IsContiguous() || (entries > 0 && t->data == nullptr)) {
      throw Error(field, t->Describe(), "a contiguous i32 tensor of " + std::to_string(entries) + " entries");
    }
    if (reinterpret_cast<std::uintptr_t>(t->data) % alignof(std::int32_t) != 0) {
      throw Error(field, "an address that is no multiple of 4", "aligned i32 entries");
    }
    data_ = static_cast<const std::int32_t*>(t->data);
  }
  bool given() const { return given_; }
  std::int64_t operator[](std::int64_t b) const {
    return cumulative_ ? std::int64_t{data_[b + 1]} - data_[b] : data_[b];
  }
  std::string Field(std::int64_t b) const { return std::string(field_) + "[" + std::to_string(b + cumulative_) + "]"; }

 private:
  const char* field_ = "";
  const std::int32_t* data_ = nullptr;
  bool given_ = false, cumulative_ = false;
};

// rows x page_size, saturated.
std::int64_t Slots(std::int64_t pages, std::int64_t page_size) {
  std::int64_t slots = 0;
  return __builtin_mul_overflow(pages, page_size, &slots) ? std::numeric_limits<std::int64_t>::max() : slots;
}

// heads_kv, dtypes, Dv and paging, from k and v.
void ReadKeys(const AttentionArgs& a, bool packed_kv, Problem& p) {
  const bool csr = a.kv_indptr || a.kv_indices || a.kv_last_page_len;
  const bool paged = csr || a.block_table;
  const int rank = packed_kv ? 3 : 4;
  RequireRank("k", a.k, rank, paged ? "a pool of pages" : packed_kv ? "(Tkv, Hkv, D)" : "(B, Skv, Hkv, D)");
  RequireRank("v", a.v, rank, paged ? "a pool of pages" : packed_kv ? "(Tkv, Hkv, Dv)" : "(B, Skv, Hkv, Dv)");
  p.kv_dtype = a.k.dtype;
  p.head_dim_v = a.v.shape[packed_kv ? 2 : 3];
  if (!paged) {
    p.heads_kv = a.k.shape[packed_kv ? 1 : 2];
    return;
  }
  p.table = csr ? TableKind::kCsr : TableKind::kBlock;
  p.layout = a.kv_layout;
  p.page_size = a.k.shape[p.layout == KvLayout::kNHD ? 1 : 2];
  p.heads_kv = a.k.shape[p.layout == KvLayout::kNHD ? 2 : 1];
  constexpr std::int64_t kMaxPageSize = std::numeric_limits<std::int32_t>::max();
  if (*p.page_size < 1 || *p.page_size > kMaxPageSize) {
    throw Error("page_size", std::to_string(*p.page_size), "1 to 2^31 - 1");
  }
  if (csr && !(a.kv_indptr && a.kv_indices && a.kv_last_page_len)) {
    throw Error(!a.kv_indptr ? "kv_indptr" : !a.kv_indices ? "kv_indices" : "kv_last_page_len", "absent",
                "all of kv_indptr, kv_indices and kv_last_page_len: they are one table");
  }
  if (csr) RequireRank("kv_indices", *a.kv_indices, 1, "(entries)");
  if (!csr) RequireRank("block_table", *a.block_table, 2, "(B, max_pages)");
}

// seq_q, and the phase: short query runs decode, longer ones prefill, a batch of both is mixed.
void ReadQueries(const AttentionArgs& a, Problem& p) {
  const Lengths owned("cu_seqlens_q", a.cu_seqlens_q, p.batch, true);
  const Lengths used("seqused_q", a.seqused_q, p.batch, false);
  const std::int64_t capacity = p.varlen ? a.q.shape[0] : a.q.shape[1];
  std::int64_t shortest = std::numeric_limits<std::int64_t>::max(), longest = 0;
  p.seq_q = p.varlen ? 0 : capacity;
  if (!p.varlen && !used.given()) shortest = longest = p.batch > 0 ? capacity : 0;
  for (std::int64_t b = 0; b < p.batch && (p.varlen || used.given()); ++b) {
    const std::int64_t rows = p.varlen ? owned[b] : capacity;
    if (rows > capacity) {
      throw Error(owned.Field(b), std::to_string(rows) + " rows", "at most " + std::to_string(capacity) + " (rows of q)");
    }
    p.seq_q = std::max(p.seq_q, rows);
    const std::int64_t queries = used.given() ? used[b] : rows;
    shortest = std::min(shortest, queries);
    longest = std::max(longest, queries);
  }
  p.phase = longest <= kMaxDecodeQueries    ? Phase::kDecode
            : shortest <= kMaxDecodeQueries ? Phase::kMixed
                                            : Phase::kPrefill;
}

// seq_kv and append: from the same sources, in the same order, as the checks read them (src/problem/resolve.cc).
void ReadKeyLengths(const AttentionArgs& a, bool packed_kv, Problem& p) {
  const std::int64_t n = p.batch;
  const bool csr = p.page_size && p.table == TableKind::kCsr;
  const Lengths packed("cu_seqlens_kv", packed_kv ? a.cu_seqlens_kv : std::nullopt, n, true);
  const Lengths pages("kv_indptr", a.kv_indptr, n, true), last("kv_last_page_len", a.kv_last_page_len, n, false);
  const Lengths cached("cache_seqlens", a.cache_seqlens, n, false);
  const Lengths given = a.seqlens_kv ? Lengths("seqlens_kv", a.seqlens_kv, n, false)
                                     : Lengths("seqused_kv", a.seqused_kv, n, false);
  const Lengths fresh("cu_seqlens_new", a.k_new ? a.cu_seqlens_new : std::nullopt, n, true);
  if (packed_kv && !packed.given()) {
    throw Error("cu_seqlens_kv", "absent", "(B + 1) entries, as q is packed and keys are not paged");
  }
  if (p.page_size && !csr && !cached.given() && !given.given()) {
    throw Error("seqlens_kv", "absent", "(B) key lengths, as keys are paged by a block table");
  }
  if (a.k_new && !cached.given()) throw Error("cache_seqlens", "absent", "(B) entries, as k_new is given");
  if (a.k_new) {
    const bool packed_new = a.cu_seqlens_new.has_value();
    RequireRank("k_new", *a.k_new, packed_new ? 3 : 4, packed_new ? "(Tnew, Hkv, D)" : "(B, Snew, Hkv, D)");
    p.append = packed_new ? 0 : a.k_new->shape[1];
  }

  const std::int64_t capacity = csr           ? Slots(a.kv_indices->shape[0], *p.page_size)
                                : p.page_size ? Slots(a.block_table->shape[1], *p.page_size)
                                              : a.k.shape[packed_kv ? 0 : 1];
  const Lengths& source = cached.given() ? cached : given.given() ? given : csr ? pages : packed;
  p.seq_kv = source.given() ? 0 : capacity;
  for (std::int64_t b = 0; b < n && source.given(); ++b) {
    std::int64_t keys = source[b], added = 0;
    if (&source == &pages) keys = keys > 0 ? (keys - 1) * *p.page_size + last[b] : 0;
    if (a.k_new) {
      added = fresh.given() ? fresh[b] : *p.append;
      if (added > a.k_new->shape[fresh.given() ? 0 : 1]) {
        throw Error(fresh.Field(b), std::to_string(added) + " tokens", "at most the rows of k_new");
      }
      p.append = std::max(*p.append, added);
    }
    if (keys > capacity || added > capacity - std::max<std::int64_t>(keys, 0)) {
      throw Error(source.Field(b), std::to_string(keys) + (added > 0 ? " + " + std::to_string(added) + " new tokens" : ""),
                  "at most " + std::to_string(capacity) + " keys, which " +
                      (csr ? "kv_indices can hold" : p.page_size ? "a row of block_table can hold" : "k holds"));
    }
    p.seq_kv = std::max(p.seq_kv, keys + added);
  }
  // Validate counts the appended keys among seq_kv; an empty batch still has its append.
  p.seq_kv = std::max(p.seq_kv, p.append.value_or(0));
}

// The least of what a tensor holds and what the caller promises, where only a table knows the lengths.
std::int64_t Bound(const char* field, std::int64_t capacity, const std::optional<std::int64_t>& promised, bool has_table) {
  if (promised && *promised < 0) throw Error(field, std::to_string(*promised), "at least 0");
  return promised && has_table ? std::min(capacity, *promised) : capacity;
}

// ReadQueries and ReadKeyLengths of a call on a GPU.
void ReadBounds(const AttentionArgs& a, bool packed_kv, Problem& p) {
  p.seq_q = Bound("max_seqlen_q", a.q.shape[p.varlen ? 0 : 1], a.max_seqlen_q, p.varlen || a.seqused_q);
  p.phase = p.seq_q <= kMaxDecodeQueries ? Phase::kDecode : Phase::kPrefill;
  if (a.k_new) {
    const bool packed_new = a.cu_seqlens_new.has_value();
    RequireRank("k_new", *a.k_new, packed_new ? 3 : 4, packed_new ? "(Tnew, Hkv, D)" : "(B, Snew, Hkv, D)");
    p.append = a.k_new->shape[packed_new ? 0 : 1];
  }
  const std::int64_t capacity = !p.page_size ? a.k.shape[packed_kv ? 0 : 1]
                                             : Slots(p.table == TableKind::kCsr ? a.kv_indices->shape[0] : a.block_table->shape[1],
                                                     *p.page_size);
  const bool has_table = packed_kv || p.page_size || a.cache_seqlens || a.seqlens_kv || a.seqused_kv;
  p.seq_kv = Bound("max_seqlen_kv", capacity, a.max_seqlen_kv, has_table);
  if (p.append) p.append = std::min(*p.append, p.seq_kv);
}

}  // namespace

Problem ProblemOf(const AttentionArgs& a, const AttentionOptions& options) {
  Problem p;
  p.options = options;
  p.varlen = a.cu_seqlens_q.has_value();
  RequireRank("q", a.q, p.varlen ? 3 : 4, p.varlen ? "(Tq, Hq, D), as cu_seqlens_q is given" : "(B, Sq, Hq, D)");
  p.heads_q = a.q.shape[p.varlen ? 1 : 2];
  p.head_dim = a.q.shape[p.varlen ? 2 : 3];
  p.dtype = a.q.dtype;
  if (p.varlen && (a.cu_seqlens_q->rank != 1 || a.cu_seqlens_q->shape[0] < 1)) {
    throw Error("cu_seqlens_q", a.cu_seqlens_q->Describe(), "(B + 1) entries");
  }
  p.batch = p.varlen ? a.cu_seqlens_q->shape[0] - 1 : a.q.shape[0];

  const bool packed_kv = p.varlen && !a.block_table && !a.kv_indptr && !a.kv_indices && !a.kv_last_page_len;
  ReadKeys(a, packed_kv, p);
  if (a.q.device.type == DeviceType::kCuda) {
    ReadBounds(a, packed_kv, p);
  } else {
    ReadQueries(a, p);
    ReadKeyLengths(a, packed_kv, p);
  }

  p.alibi = a.alibi_slopes.has_value();
  p.bias = a.bias.has_value();
  p.mask = a.mask.has_value();
  p.sink = a.sink.has_value();
  p.leftpad = a.leftpad.has_value();
  p.qv = a.qv.has_value();
  p.q_offset = a.q_offset.has_value();
  p.score_mod = a.score_mod.fn != nullptr;
  p.mask_mod = a.mask_mod.fn != nullptr;
  p.lse = a.lse.has_value();
  if (a.out.data != nullptr && a.out.dtype != p.OutType()) p.out_dtype = a.out.dtype;
  return p;
}

Problem BackwardProblemOf(const BackwardArgs& a, const AttentionOptions& options) {
  Problem p = ProblemOf(a.forward, options);
  p.phase = Phase::kBackward;
  p.lse = false;
  for (const TensorView* gradient : {&a.dq, &a.dk, &a.dv}) {
    if (gradient->data != nullptr && gradient->dtype != p.dtype) p.grad_dtype = gradient->dtype;
  }
  p.dlse = a.dlse.has_value();
  p.dbias = a.dbias.has_value();
  p.dsink = a.dsink.has_value();
  return p;
}

}  // namespace regard
