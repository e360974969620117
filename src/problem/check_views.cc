// What the views of a call claim, held against the plan's bounds and against each other, before any element is read:
// presence, device, dtype, rank, extents, strides, addresses. Overlap of written memory is in check_overlap.cc.
#include <initializer_list>
#include <string>

#include "regard/status.h"
#include "src/problem/checks.h"
#include "src/problem/view_checks.h"

namespace regard::checks {
namespace {

void RefuseUnless(bool allowed, const char* name, const std::optional<TensorView>& t, const char* needs) {
  if (t && !allowed) throw Error(name, "given", "absent: it needs " + std::string(needs));
}

void CheckQueries(const Problem& p, const AttentionArgs& a, std::int64_t batch) {
  CheckDType("q", a.q, p.dtype);
  CheckDType("out", a.out, p.OutType());
  if (a.qv) CheckDType("qv", *a.qv, p.dtype);
  const Dim heads{p.heads_q, "Hq"}, dim{p.head_dim, "D"}, dim_v{p.head_dim_v, "Dv"};
  if (p.varlen) {
    CheckShape("q", a.q, {{kAny, "Tq"}, heads, dim});
    const Dim total{a.q.shape[0], "Tq"};
    CheckShape("out", a.out, {total, heads, dim_v});
    if (a.qv) CheckShape("qv", *a.qv, {total, heads, dim_v});
    if (a.lse) CheckShape("lse", *a.lse, {heads, total});
  } else {
    const Dim b{batch, "B"};
    CheckShape("q", a.q, {b, {kAny, "Sq"}, heads, dim});
    const Dim rows{a.q.shape[1], "Sq"};
    CheckShape("out", a.out, {b, rows, heads, dim_v});
    if (a.qv) CheckShape("qv", *a.qv, {b, rows, heads, dim_v});
    if (a.lse) CheckShape("lse", *a.lse, {b, heads, rows});
  }
  if (a.lse) CheckDType("lse", *a.lse, DType::kF32);
}

void CheckPages(const Problem& p, const AttentionArgs& a, std::int64_t batch) {
  const std::int64_t page_size = *p.page_size;
  if (page_size < 1 || page_size > INT32_MAX) throw Error("page_size", Text(page_size), "1 to 2^31 - 1");
  const bool nhd = p.layout == KvLayout::kNHD;
  if (a.kv_layout != p.layout) {
    throw Error("kv_layout", a.kv_layout == KvLayout::kNHD ? "NHD" : "HND",
                nhd ? "NHD, as the plan" : "HND, as the plan");
  }
  const Dim slots{page_size, "page_size"}, heads{p.heads_kv, "Hkv"};
  const Dim d1 = nhd ? slots : heads, d2 = nhd ? heads : slots;
  CheckShape("k", a.k, {{kAny, "pages"}, d1, d2, {p.head_dim, "D"}});
  CheckShape("v", a.v, {{a.k.shape[0], "pages of k"}, d1, d2, {p.head_dim_v, "Dv"}});
  const bool csr = p.table == TableKind::kCsr;
  CheckPresence("block_table", a.block_table.has_value(), !csr, "block table in the plan");
  CheckPresence("kv_indptr", a.kv_indptr.has_value(), csr, "CSR table in the plan");
  CheckPresence("kv_indices", a.kv_indices.has_value(), csr, "CSR table in the plan");
  CheckPresence("kv_last_page_len", a.kv_last_page_len.has_value(), csr, "CSR table in the plan");
  RefuseUnless(false, "cu_seqlens_kv", a.cu_seqlens_kv, "packed keys, and these are paged");
  if (csr) {
    RefuseUnless(false, "cache_batch_idx", a.cache_batch_idx, "cache rows or a block table");
    CheckIndex("kv_indptr", a.kv_indptr, {{batch + 1, "B + 1"}});
    CheckIndex("kv_indices", a.kv_indices, {{kAny, "entries"}});
    CheckIndex("kv_last_page_len", a.kv_last_page_len, {{batch, "B"}});
  } else {
    CheckIndex("block_table", a.block_table, {{a.cache_batch_idx ? kAny : batch, "B"}, {kAny, "max_pages"}});
    if (!a.seqlens_kv && !a.cache_seqlens && !a.seqused_kv) {
      throw Error("seqlens_kv", "absent", "the key lengths: a block table gives none");
    }
  }
}

void CheckKeys(const Problem& p, const AttentionArgs& a, std::int64_t batch) {
  CheckDType("k", a.k, p.kv_dtype);
  CheckDType("v", a.v, p.kv_dtype);
  if (p.page_size) return CheckPages(p, a, batch);
  RefuseUnless(false, "block_table", a.block_table, "a plan with pages");
  RefuseUnless(false, "kv_indptr", a.kv_indptr, "a plan with pages");
  RefuseUnless(false, "kv_indices", a.kv_indices, "a plan with pages");
  RefuseUnless(false, "kv_last_page_len", a.kv_last_page_len, "a plan with pages");
  CheckPresence("cu_seqlens_kv", a.cu_seqlens_kv.has_value(), p.varlen, "packed keys in the plan");
  const Dim heads{p.heads_kv, "Hkv"}, dim{p.head_dim, "D"}, dim_v{p.head_dim_v, "Dv"};
  if (p.varlen) {
    RefuseUnless(false, "cache_batch_idx", a.cache_batch_idx, "cache rows or a block table");
    CheckIndex("cu_seqlens_kv", a.cu_seqlens_kv, {{batch + 1, "B + 1"}});
    CheckShape("k", a.k, {{kAny, "Tkv"}, heads, dim});
    CheckShape("v", a.v, {{a.k.shape[0], "Tkv of k"}, heads, dim_v});
  } else {
    CheckShape("k", a.k, {{a.cache_batch_idx ? kAny : batch, "B"}, {kAny, "Skv"}, heads, dim});
    CheckShape("v", a.v, {{a.k.shape[0], "rows of k"}, {a.k.shape[1], "Skv of k"}, heads, dim_v});
  }
}

void CheckAppend(const Problem& p, const AttentionArgs& a, std::int64_t batch) {
  CheckPresence("k_new", a.k_new.has_value(), p.append.has_value(), "append in the plan");
  CheckPresence("v_new", a.v_new.has_value(), p.append.has_value(), "append in the plan");
  const bool rotary = p.options.rotary != Rotary::kNone;
  CheckPresence("rotary_cos", a.rotary_cos.has_value(), rotary, "rotary in the plan");
  CheckPresence("rotary_sin", a.rotary_sin.has_value(), rotary, "rotary in the plan");
  RefuseUnless(rotary, "rotary_seqlens", a.rotary_seqlens, "rotary_cos and rotary_sin");
  RefuseUnless(p.append.has_value(), "cu_seqlens_new", a.cu_seqlens_new, "k_new");
  if (!p.append) {
    if (rotary) throw Error("k_new", "absent", "new keys: rotary needs k_new");
    return;
  }
  CheckPresence("cache_seqlens", a.cache_seqlens.has_value(), true, "an append");
  CheckDType("k_new", *a.k_new, p.dtype);
  CheckDType("v_new", *a.v_new, p.dtype);
  const Dim heads{p.heads_kv, "Hkv"}, dim{p.head_dim, "D"}, dim_v{p.head_dim_v, "Dv"};
  if (a.cu_seqlens_new) {
    CheckIndex("cu_seqlens_new", a.cu_seqlens_new, {{batch + 1, "B + 1"}});
    CheckShape("k_new", *a.k_new, {{kAny, "Tnew"}, heads, dim});
    CheckShape("v_new", *a.v_new, {{a.k_new->shape[0], "Tnew of k_new"}, heads, dim_v});
  } else {
    CheckShape("k_new", *a.k_new, {{batch, "B"}, {kAny, "Snew"}, heads, dim});
    CheckShape("v_new", *a.v_new, {{batch, "B"}, {a.k_new->shape[1], "Snew of k_new"}, heads, dim_v});
    if (a.k_new->shape[1] > *p.append) {
      throw Error("k_new.shape[1]", Text(a.k_new->shape[1]), "at most " + Text(*p.append) + " (the plan's append)");
    }
  }
  if (!rotary) return;
  CheckDType("rotary_cos", *a.rotary_cos, {DType::kF32, p.dtype});
  CheckDType("rotary_sin", *a.rotary_sin, a.rotary_cos->dtype);
  CheckShape("rotary_cos", *a.rotary_cos, {{kAny, "positions"}, {kAny, "rotary_dim / 2"}});
  const std::int64_t half = a.rotary_cos->shape[1];
  CheckShape("rotary_sin", *a.rotary_sin,
             {{a.rotary_cos->shape[0], "positions of rotary_cos"}, {half, "rotary_dim / 2"}});
  if (half < 1 || 2 * half > p.head_dim) {
    throw Error("rotary_cos.shape[1]", Text(half), "rotary_dim / 2, 1 to " + Text(p.head_dim / 2) + " (D / 2)");
  }
}

// bias and mask: (B|1, Hq|1, Sq|1, Skv|1). Sq and Skv against the lengths in use: CheckSequences.
void CheckBroadcast(const char* name, const TensorView& v, const Problem& p, std::int64_t batch) {
  CheckShape(name, v, {{kAny, "B or 1"}, {kAny, "Hq or 1"}, {kAny, "Sq or 1"}, {kAny, "Skv or 1"}});
  const auto one_or = [&](int d, std::int64_t extent, const char* what) {
    if (v.shape[d] != 1 && v.shape[d] != extent) {
      throw Error(At(Field(name, "shape").c_str(), d), Text(v.shape[d]), "1 or " + Text(extent) + " (" + what + ")");
    }
  };
  one_or(0, batch, "B");
  one_or(1, p.heads_q, "Hq");
}

void CheckScoreTensors(const Problem& p, const AttentionArgs& a, std::int64_t batch) {
  CheckPresence("alibi_slopes", a.alibi_slopes.has_value(), p.alibi, "alibi in the plan");
  CheckPresence("bias", a.bias.has_value(), p.bias, "bias in the plan");
  CheckPresence("mask", a.mask.has_value(), p.mask, "mask in the plan");
  CheckPresence("sink", a.sink.has_value(), p.sink, "sink in the plan");
  CheckPresence("score_mod", a.score_mod.fn != nullptr, p.score_mod, "score_mod in the plan");
  CheckPresence("mask_mod", a.mask_mod.fn != nullptr, p.mask_mod, "mask_mod in the plan");
  const Dim heads{p.heads_q, "Hq"};
  if (a.alibi_slopes) {
    CheckDType("alibi_slopes", *a.alibi_slopes, DType::kF32);
    if (a.alibi_slopes->rank == 2) {
      CheckShape("alibi_slopes", *a.alibi_slopes, {{batch, "B"}, heads});
    } else {
      CheckShape("alibi_slopes", *a.alibi_slopes, {heads});
    }
  }
  if (a.bias) {
    CheckDType("bias", *a.bias, {DType::kF32, DType::kF16, DType::kBF16});
    CheckBroadcast("bias", *a.bias, p, batch);
  }
  if (a.mask) {
    CheckDType("mask", *a.mask, {DType::kBool, DType::kU8});
    CheckBroadcast("mask", *a.mask, p, batch);
  }
  if (a.sink) {
    CheckDType("sink", *a.sink, {DType::kF32, p.dtype});
    CheckShape("sink", *a.sink, {heads});
  }
  RefuseUnless(IsFp8(p.dtype), "q_descale", a.q_descale, "fp8 q");
  RefuseUnless(IsFp8(p.kv_dtype), "k_descale", a.k_descale, "fp8 k and v");
  RefuseUnless(IsFp8(p.kv_dtype), "v_descale", a.v_descale, "fp8 k and v");
  const auto descale = [&](const char* name, const std::optional<TensorView>& t) {
    if (!t) return;
    CheckDType(name, *t, DType::kF32);
    CheckShape(name, *t, {{batch, "B"}, {p.heads_kv, "Hkv"}});
  };
  descale("q_descale", a.q_descale);
  descale("k_descale", a.k_descale);
  descale("v_descale", a.v_descale);
}

}  // namespace

void CheckViews(const Problem& p, const AttentionArgs& a, Device device) {
  if (a.q.device != device && (device.type != DeviceType::kCpu || a.q.device.type != DeviceType::kCpu)) {
    throw Error("q.device", DeviceText(a.q.device), DeviceText(device));
  }
  CheckStorage("q", a.q, a.q.device);
  CheckStorage("k", a.k, a.q.device);
  CheckStorage("v", a.v, a.q.device);
  CheckStorage("out", a.out, a.q.device);
  for (const Member& m : OptionalMembers()) {
    if (const auto& t = a.*m.view) CheckStorage(m.name, *t, a.q.device);
  }

  CheckPresence("cu_seqlens_q", a.cu_seqlens_q.has_value(), p.varlen, "packed q in the plan");
  const std::int64_t batch = BatchOf(a);
  if (batch < 0) throw Error("cu_seqlens_q.shape[0]", "0", "B + 1, at least 1");
  if (batch > p.batch) {
    throw Error(
        p.varlen ? "cu_seqlens_q.shape[0]" : "q.shape[0]", Text(p.varlen ? batch + 1 : batch),
        "at most " + Text(p.varlen ? p.batch + 1 : p.batch) + " (the plan's batch" + (p.varlen ? " + 1)" : ")"));
  }
  CheckPresence("qv", a.qv.has_value(), p.qv, "qv in the plan");
  const bool backward = p.phase == Phase::kBackward;
  CheckPresence("lse", a.lse.has_value(), p.lse || backward, backward ? "a backward pass" : "lse in the plan");
  CheckPresence("leftpad", a.leftpad.has_value(), p.leftpad, "leftpad in the plan");
  CheckPresence("q_offset", a.q_offset.has_value(), p.q_offset, "q_offset in the plan");

  const Dim sequences{batch, "B"};
  CheckIndex("cu_seqlens_q", a.cu_seqlens_q, {{batch + 1, "B + 1"}});
  CheckIndex("seqused_q", a.seqused_q, {sequences});
  CheckIndex("seqused_kv", a.seqused_kv, {sequences});
  CheckIndex("seqlens_kv", a.seqlens_kv, {sequences});
  CheckIndex("q_offset", a.q_offset, {sequences});
  CheckIndex("leftpad", a.leftpad, {sequences});
  CheckIndex("cache_seqlens", a.cache_seqlens, {sequences});
  CheckIndex("cache_batch_idx", a.cache_batch_idx, {sequences});
  CheckIndex("rotary_seqlens", a.rotary_seqlens, {sequences});

  CheckQueries(p, a, batch);
  CheckKeys(p, a, batch);
  CheckAppend(p, a, batch);
  CheckScoreTensors(p, a, batch);
  if (!backward) CheckOverlap(a);
}

}  // namespace regard::checks
