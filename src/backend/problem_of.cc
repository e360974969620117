// ProblemOf: the exact problem of a call. It runs before validation, so it reads nothing that it has not looked at: ranks,
// element types and extents of the few tables it needs.
#include <algorithm>
#include <string>

#include "regard/attention.h"
#include "src/problem/sequence.h"

namespace regard {
namespace {

void RequireRank(const char* field, const TensorView& t, int rank, const char* shape) {
  if (t.rank != rank) throw Error(field, t.Describe(), "rank " + std::to_string(rank) + ", " + shape);
  for (int d = 0; d < rank; ++d) {
    if (t.shape[static_cast<std::size_t>(d)] < 0) throw Error(field, t.Describe(), "no negative extent");
  }
}

// A contiguous host table of i32 with at least one entry a sequence.
const std::int32_t* Table(const char* field, const std::optional<TensorView>& t, std::int64_t entries) {
  if (t->rank != 1 || t->dtype != DType::kI32 || t->device.type != DeviceType::kCpu || t->shape[0] < entries ||
      !t->IsContiguous() || (entries > 0 && t->data == nullptr)) {
    throw Error(field, t->Describe(), "a contiguous i32 tensor of " + std::to_string(entries) + " entries");
  }
  return static_cast<const std::int32_t*>(t->data);
}

struct Extremes {
  std::int64_t least = 0, most = 0;
};

// Least and largest of lengths (n entries) or of differences (n + 1 entries).
Extremes LengthsIn(const char* field, const std::optional<TensorView>& t, std::int64_t n, bool differences) {
  const std::int32_t* x = Table(field, t, n + (differences ? 1 : 0));
  Extremes e;
  for (std::int64_t b = 0; b < n; ++b) {
    const std::int64_t length = differences ? std::int64_t{x[b + 1]} - x[b] : x[b];
    e.least = b == 0 ? length : std::min(e.least, length);
    e.most = std::max(e.most, length);
  }
  return e;
}

// Longest sequence of CSR pages: (pages - 1) * page_size + last_page_len keys.
std::int64_t LongestCsr(const AttentionArgs& a, std::int64_t n, std::int64_t page_size) {
  if (!a.kv_last_page_len) throw Error("kv_last_page_len", "absent", "(B) entries, as kv_indptr is given");
  const std::int32_t* indptr = Table("kv_indptr", a.kv_indptr, n + 1);
  const std::int32_t* last = Table("kv_last_page_len", a.kv_last_page_len, n);
  std::int64_t most = 0;
  for (std::int64_t b = 0; b < n; ++b) {
    const std::int64_t pages = std::int64_t{indptr[b + 1]} - indptr[b];
    if (pages > 0) most = std::max(most, (pages - 1) * page_size + last[b]);
  }
  return most;
}

}  // namespace

Problem ProblemOf(const AttentionArgs& a, const AttentionOptions& options) {
  Problem p;
  p.options = options;
  const bool packed = a.cu_seqlens_q.has_value();
  RequireRank("q", a.q, packed ? 3 : 4, packed ? "(Tq, Hq, D), as cu_seqlens_q is given" : "(B, Sq, Hq, D)");
  p.varlen = packed;
  p.heads_q = a.q.shape[packed ? 1 : 2];
  p.head_dim = a.q.shape[packed ? 2 : 3];
  p.dtype = a.q.dtype;
  if (packed && (a.cu_seqlens_q->rank != 1 || a.cu_seqlens_q->shape[0] < 1)) {
    throw Error("cu_seqlens_q", a.cu_seqlens_q->Describe(), "(B + 1) entries");
  }
  p.batch = packed ? a.cu_seqlens_q->shape[0] - 1 : a.q.shape[0];

  // Keys.
  const bool csr = a.kv_indptr || a.kv_indices || a.kv_last_page_len;
  const bool paged = csr || a.block_table;
  const bool packed_kv = packed && !paged;
  RequireRank("k", a.k, packed_kv ? 3 : 4, paged ? "a pool of pages" : packed_kv ? "(Tkv, Hkv, D)" : "(B, Skv, Hkv, D)");
  RequireRank("v", a.v, packed_kv ? 3 : 4, paged ? "a pool of pages" : packed_kv ? "(Tkv, Hkv, Dv)" : "(B, Skv, Hkv, Dv)");
  p.kv_dtype = a.k.dtype;
  p.head_dim_v = a.v.shape[packed_kv ? 2 : 3];
  if (paged) {
    p.table = csr ? TableKind::kCsr : TableKind::kBlock;
    p.layout = a.kv_layout;
    p.page_size = a.k.shape[p.layout == KvLayout::kNHD ? 1 : 2];
    p.heads_kv = a.k.shape[p.layout == KvLayout::kNHD ? 2 : 1];
  } else {
    p.heads_kv = a.k.shape[packed_kv ? 1 : 2];
  }

  // Lengths.
  const std::int64_t n = p.batch;
  Extremes q{0, 0};
  if (a.seqused_q) {
    q = LengthsIn("seqused_q", a.seqused_q, n, false);
  } else if (packed) {
    q = LengthsIn("cu_seqlens_q", a.cu_seqlens_q, n, true);
  } else {
    q = {a.q.shape[1], a.q.shape[1]};
  }
  p.seq_q = packed ? std::max(q.most, LengthsIn("cu_seqlens_q", a.cu_seqlens_q, n, true).most) : a.q.shape[1];
  std::int64_t keys = 0;
  if (a.cache_seqlens) {
    keys = LengthsIn("cache_seqlens", a.cache_seqlens, n, false).most;
  } else if (a.seqused_kv) {
    keys = LengthsIn("seqused_kv", a.seqused_kv, n, false).most;
  } else if (paged && a.seqlens_kv) {
    keys = LengthsIn("seqlens_kv", a.seqlens_kv, n, false).most;
  } else if (csr && a.kv_indptr) {
    keys = LongestCsr(a, n, *p.page_size);
  } else if (packed_kv) {
    if (!a.cu_seqlens_kv) throw Error("cu_seqlens_kv", "absent", "(B + 1) entries, as q is packed and keys are not paged");
    keys = LengthsIn("cu_seqlens_kv", a.cu_seqlens_kv, n, true).most;
  } else if (!paged) {
    keys = a.k.shape[1];
  } else {
    throw Error("seqlens_kv", "absent", "(B) key lengths, as keys are paged by a block table");
  }
  if (a.k_new) {
    const bool packed_new = a.cu_seqlens_new.has_value();
    RequireRank("k_new", *a.k_new, packed_new ? 3 : 4, packed_new ? "(Tnew, Hkv, D)" : "(B, Snew, Hkv, D)");
    p.append = packed_new ? LengthsIn("cu_seqlens_new", a.cu_seqlens_new, n, true).most : a.k_new->shape[1];
    keys += *p.append;
  }
  p.seq_kv = std::max<std::int64_t>(keys, 0);

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
  // Short query runs decode; longer ones prefill; a batch of both is mixed.
  constexpr std::int64_t kDecodeQueries = 15;
  p.phase = q.most <= kDecodeQueries ? Phase::kDecode : q.least <= kDecodeQueries ? Phase::kMixed : Phase::kPrefill;
  return p;
}

}  // namespace regard
