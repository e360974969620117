#include "src/cuda/params_of.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "regard/status.h"
#include "src/cuda/instances.h"
#include "src/problem/sequence.h"

namespace regard::cuda {
namespace {

const i32* Table(const std::optional<TensorView>& t) {
  return t ? static_cast<const i32*>(t->data) : nullptr;
}
const float* Floats(const std::optional<TensorView>& t) {
  return t ? static_cast<const float*>(t->data) : nullptr;
}

Rows PagesOf(const TensorView& view, KvLayout layout) {
  const bool nhd = layout == KvLayout::kNHD;
  return {view.data, view.stride[0], view.stride[nhd ? 1 : 2], view.stride[nhd ? 2 : 1]};
}

// Rows [0, total) of q in the order that it lies in, one after the other.
Rows RotatedRows(const regard::Problem& p, const AttentionArgs& a, void* data) {
  Rows rows;
  rows.data = data;
  rows.head = p.head_dim;
  rows.row = p.heads_q * p.head_dim;
  rows.batch = a.cu_seqlens_q ? 0 : a.q.shape[1] * rows.row;
  return rows;
}

}  // namespace

Rows RowsOf(const TensorView& view, bool packed) {
  if (packed) return {view.data, 0, view.stride[0], view.stride[1]};
  return {view.data, view.stride[0], view.stride[1], view.stride[2]};
}

Map MapOf(const TensorView& view) {
  Map map;
  map.data = view.data;
  for (int d = 0; d < 4; ++d) {
    const auto n = static_cast<std::size_t>(d);
    map.stride[d] = view.shape[n] == 1 ? 0 : view.stride[n];
    map.extent[d] = static_cast<i32>(std::min<std::int64_t>(view.shape[n], INT32_MAX));
  }
  return map;
}

Shape ShapeOf(const regard::Problem& p, const AttentionArgs& a, unsigned* error) {
  Shape s;
  s.batch = static_cast<i32>(BatchOf(a));
  s.heads_q = static_cast<i32>(p.heads_q);
  s.heads_kv = static_cast<i32>(p.heads_kv);
  s.group = static_cast<i32>(p.Group());
  s.head_dim = static_cast<i32>(p.head_dim);
  s.head_dim_v = static_cast<i32>(p.head_dim_v);
  s.seq_q = static_cast<i32>(p.seq_q);
  s.seq_kv = static_cast<i32>(p.seq_kv);
  s.packed_q = a.cu_seqlens_q ? 1 : 0;
  s.total_q = a.q.shape[a.cu_seqlens_q ? 0 : 1];
  if (a.k_new) {
    s.append = static_cast<i32>(p.append.value_or(0));
    s.packed_new = a.cu_seqlens_new ? 1 : 0;
    s.total_new = a.k_new->shape[a.cu_seqlens_new ? 0 : 1];
  }
  s.lengths = {Table(a.cu_seqlens_q),    Table(a.cu_seqlens_kv), Table(a.cu_seqlens_new), Table(a.seqused_q),
               Table(a.seqused_kv),      Table(a.seqlens_kv),    Table(a.cache_seqlens),  Table(a.cache_batch_idx),
               Table(a.q_offset),        Table(a.leftpad),       Table(a.rotary_seqlens), Table(a.kv_indptr),
               Table(a.kv_last_page_len)};
  s.error = error;
  return s;
}

Cache CacheOf(const regard::Problem& p, const AttentionArgs& a) {
  Cache c;
  if (p.page_size) {
    c.k = PagesOf(a.k, p.layout);
    c.v = PagesOf(a.v, p.layout);
    c.paged = 1;
    c.page_size = static_cast<i32>(*p.page_size);
    c.pages = a.k.shape[0];
    if (p.table == TableKind::kCsr) {
      c.csr = 1;
      c.indices = Table(a.kv_indices);
      c.index_count = a.kv_indices->shape[0];
    } else {
      c.block_table = Table(a.block_table);
      c.table_rows = a.block_table->shape[0];
      c.table_pages = a.block_table->shape[1];
      c.table_stride = a.block_table->shape[1];
    }
    return c;
  }
  c.k = RowsOf(a.k, p.varlen);
  c.v = RowsOf(a.v, p.varlen);
  if (p.varlen) {
    c.packed = 1;
    c.total_kv = a.k.shape[0];
  } else {
    c.kv_rows = a.k.shape[0];
    c.row_capacity = a.k.shape[1];
  }
  return c;
}

Options OptionsOf(const regard::Problem& p, const AttentionArgs& a) {
  const AttentionOptions& from = p.options;
  Options o;
  o.scale = static_cast<float>(p.Scale());
  o.softcap = static_cast<float>(from.softcap);
  o.causal = from.causal ? 1 : 0;
  o.window_left = from.window_left.value_or(-1);
  o.window_right = from.window_right.value_or(-1);
  o.chunk = from.chunk.value_or(0);
  if (a.alibi_slopes) {
    o.alibi = Floats(a.alibi_slopes);
    o.alibi_batch = a.alibi_slopes->rank == 2 ? a.alibi_slopes->stride[0] : 0;
  }
  if (a.bias) {
    o.bias = MapOf(*a.bias);
    o.bias_type = ElementOf(a.bias->dtype);
  }
  if (a.mask) o.mask = MapOf(*a.mask);
  if (a.sink) {
    o.sink = a.sink->data;
    o.sink_type = ElementOf(a.sink->dtype);
  }
  if (from.dropout > 0) {  // 2^32 * p is exact, and below 2^32 for p < 1
    o.dropout = from.dropout < 1 ? 1 : 2;
    o.dropout_threshold = from.dropout < 1 ? static_cast<u32>(std::floor(from.dropout * 4294967296.0)) : 0;
    o.dropout_scale = from.dropout < 1 ? static_cast<float>(1 / (1 - from.dropout)) : 0.0f;
    o.seed_low = static_cast<u32>(a.dropout_seed);
    o.seed_high = static_cast<u32>(a.dropout_seed >> 32) ^ static_cast<u32>(a.dropout_offset >> 32);
    o.dropout_offset = static_cast<u32>(a.dropout_offset);
  }
  o.q_descale = Floats(a.q_descale);
  o.k_descale = Floats(a.k_descale);
  o.v_descale = Floats(a.v_descale);
  for (const auto* t : {&a.q_descale, &a.k_descale, &a.v_descale}) {
    if (*t) o.descale_batch = (*t)->stride[0];
  }
  return o;
}

ForwardParams ForwardParamsOf(const LaunchContext& ctx, unsigned* error) {
  const regard::Problem& p = ctx.problem;
  const AttentionArgs& a = ctx.args;
  const bool packed = a.cu_seqlens_q.has_value();
  ForwardParams f;
  f.shape = ShapeOf(p, a, error);
  f.options = OptionsOf(p, a);
  f.cache = CacheOf(p, a);
  f.q = RowsOf(a.q, packed);
  f.out = RowsOf(a.out, packed);
  if (a.qv) f.qv = RowsOf(*a.qv, packed);
  if (a.lse) {
    f.lse = static_cast<float*>(a.lse->data);
    f.lse_batch = packed ? 0 : a.lse->stride[0];
    f.lse_head = a.lse->stride[packed ? 0 : 1];
  }
  f.q_type = ElementOf(a.q.dtype);
  f.kv_type = ElementOf(a.k.dtype);
  f.out_type = ElementOf(a.out.dtype);
  return f;
}

AppendParams AppendParamsOf(const LaunchContext& ctx, unsigned* error, void* q_out) {
  const regard::Problem& p = ctx.problem;
  const AttentionArgs& a = ctx.args;
  const AttentionOptions& o = p.options;
  AppendParams f;
  f.shape = ShapeOf(p, a, error);
  f.cache = CacheOf(p, a);
  f.k_new = RowsOf(*a.k_new, a.cu_seqlens_new.has_value());
  f.v_new = RowsOf(*a.v_new, a.cu_seqlens_new.has_value());
  f.type = ElementOf(a.k_new->dtype);
  f.kv_type = ElementOf(a.k.dtype);
  if (o.rotary != Rotary::kNone) {
    f.q = RowsOf(a.q, a.cu_seqlens_q.has_value());
    f.q_out = RotatedRows(p, a, q_out);
    f.rotary = o.rotary == Rotary::kInterleaved ? 1 : 2;
    f.rotary_dim = static_cast<i32>(2 * a.rotary_cos->shape[1]);
    f.rotary_positions = a.rotary_cos->shape[0];
    f.cos = a.rotary_cos->data;
    f.sin = a.rotary_sin->data;
    f.rotary_type = ElementOf(a.rotary_cos->dtype);
    f.q_turns = o.causal || o.window_left || o.window_right || o.chunk ? 1 : 0;
  }
  // New fp8 tokens are quantised with the cache's descale already.
  if (!IsFp8(a.k_new->dtype)) {
    f.k_descale = Floats(a.k_descale);
    f.v_descale = Floats(a.v_descale);
    if (a.k_descale) f.descale_batch = a.k_descale->stride[0];
    if (a.v_descale) f.descale_batch = a.v_descale->stride[0];
  }
  return f;
}

BackwardParams BackwardParamsOf(const LaunchContext& ctx, unsigned* error, float* delta) {
  const BackwardArgs& call = *ctx.backward;
  const AttentionArgs& a = call.forward;
  const bool packed = a.cu_seqlens_q.has_value(), packed_kv = ctx.problem.varlen;
  BackwardParams f;
  f.shape = ShapeOf(ctx.problem, a, error);
  // Gradients of keys past the used ones are written too.
  if (!packed_kv || a.seqused_kv) f.shape.seq_kv = static_cast<i32>(a.k.shape[packed_kv ? 0 : 1]);
  f.options = OptionsOf(ctx.problem, a);
  f.q = RowsOf(a.q, packed);
  f.k = RowsOf(a.k, packed_kv);
  f.v = RowsOf(a.v, packed_kv);
  f.out = RowsOf(a.out, packed);
  f.dout = RowsOf(call.dout, packed);
  f.dq = RowsOf(call.dq, packed);
  f.dk = RowsOf(call.dk, packed_kv);
  f.dv = RowsOf(call.dv, packed_kv);
  f.lse = static_cast<const float*>(a.lse->data);
  f.lse_batch = packed ? 0 : a.lse->stride[0];
  f.lse_head = a.lse->stride[packed ? 0 : 1];
  if (call.dlse) {
    f.dlse = static_cast<const float*>(call.dlse->data);
    f.dlse_batch = packed ? 0 : call.dlse->stride[0];
    f.dlse_head = call.dlse->stride[packed ? 0 : 1];
  }
  f.type = ElementOf(a.q.dtype);
  f.out_type = ElementOf(a.out.dtype);
  f.dout_type = ElementOf(call.dout.dtype);
  f.grad_type = ElementOf(call.dq.dtype);
  f.packed_kv = packed_kv ? 1 : 0;
  f.total_kv = a.k.shape[packed_kv ? 0 : 1];
  f.delta = delta;
  if (call.dbias) {
    f.dbias = MapOf(*call.dbias);
    f.dbias_type = ElementOf(call.dbias->dtype);
  }
  if (call.dsink) f.dsink = static_cast<float*>(call.dsink->data);
  return f;
}

void RequireIndexable(const regard::Problem& p, std::int64_t pieces) {
  const auto require = [](const char* field, std::int64_t value) {
    if (value > INT32_MAX / 2) throw Error(field, std::to_string(value), "at most 2^30 on a GPU");
  };
  require("b", p.batch);
  require("sq", p.seq_q);
  require("skv", p.seq_kv);
  require("hq", p.heads_q);
  require("append", p.append.value_or(0));
  require("page", p.page_size.value_or(0));
  const double rows = static_cast<double>(p.seq_q) * static_cast<double>(p.heads_q);
  const double new_rows = static_cast<double>(p.append.value_or(0)) * static_cast<double>(p.heads_kv);
  const double keys = p.phase == Phase::kBackward ? static_cast<double>(p.seq_kv) * static_cast<double>(p.heads_kv) : 0;
  const double blocks =
      static_cast<double>(p.batch) * (std::max(rows * static_cast<double>(pieces), keys) + new_rows + 1);
  if (blocks > INT32_MAX) {
    throw Error("bounds", "b * hq * sq of more than 2^31 blocks of work", "a problem that one grid can hold");
  }
}

std::int64_t LongestQueries(const regard::Problem& p, const AttentionArgs& a) {
  return std::min(p.seq_q, a.q.shape[a.cu_seqlens_q ? 0 : 1]);
}

std::int64_t LongestKeys(const regard::Problem& p, const AttentionArgs& a) {
  if (p.page_size) {
    const std::int64_t pages = p.table == TableKind::kCsr ? a.kv_indices->shape[0] : a.block_table->shape[1];
    std::int64_t slots = 0;
    return __builtin_mul_overflow(pages, *p.page_size, &slots) ? p.seq_kv : std::min(p.seq_kv, slots);
  }
  return std::min(p.seq_kv, a.k.shape[p.varlen ? 0 : 1]);
}

}  // namespace regard::cuda
