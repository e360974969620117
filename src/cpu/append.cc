#include "src/cpu/append.h"

#include <cstring>

#include "src/core/fp_mode.h"

namespace regard::cpu {
namespace {

struct RotaryTable {
  const TensorView* cos = nullptr;
  const TensorView* sin = nullptr;
  std::int64_t pairs = 0;  // rotary_dim / 2
  bool interleaved = false;
};

RotaryTable TableOf(const LaunchContext& ctx) {
  RotaryTable t;
  if (ctx.problem.options.rotary == Rotary::kNone) return t;
  t.cos = &*ctx.args.rotary_cos;
  t.sin = &*ctx.args.rotary_sin;
  t.pairs = t.cos->shape[1];
  t.interleaved = ctx.problem.options.rotary == Rotary::kInterleaved;
  return t;
}

// One row of `dim` elements of type `type` into `to` (type `to_type`): rotated at `position`, then divided by descale.
void RotateRow(const RotaryTable& t, std::int64_t position, const void* from, DType type, std::int64_t dim, void* to,
               DType to_type, float descale) {
  const auto store = [&](std::int64_t c, float x) { StoreFloat(to, to_type, c, x / descale); };
  const std::int64_t rotary_dim = 2 * t.pairs;
  for (std::int64_t k = 0; k < t.pairs; ++k) {
    const std::int64_t a = t.interleaved ? 2 * k : k, b = t.interleaved ? 2 * k + 1 : k + t.pairs;
    const float cos = LoadFloat(t.cos->At(position, k), t.cos->dtype, 0);
    const float sin = LoadFloat(t.sin->At(position, k), t.sin->dtype, 0);
    const float x = LoadFloat(from, type, a), y = LoadFloat(from, type, b);
    store(a, x * cos - y * sin);
    store(b, x * sin + y * cos);
  }
  for (std::int64_t c = rotary_dim; c < dim; ++c) store(c, LoadFloat(from, type, c));
}

// What new tokens are divided by: the descale of an fp8 cache, unless they are fp8, quantised with it already.
float DivisorOf(const std::optional<TensorView>& descale, DType from, std::int64_t b, std::int64_t h) {
  return descale && !IsFp8(from) ? *descale->At<float>(b, h) : 1.0f;
}

}  // namespace

std::size_t RotatedQueryBytes(const Problem& p) {
  if (p.options.rotary == Rotary::kNone) return 0;
  return static_cast<std::size_t>(p.batch * p.seq_q * p.heads_q * p.head_dim) * SizeOf(p.dtype);
}

void AppendKv(const LaunchContext& ctx) {
  const Problem& p = ctx.problem;
  const AttentionArgs& a = ctx.args;
  const TensorView &k_new = *a.k_new, &v_new = *a.v_new;
  const RotaryTable table = TableOf(ctx);
  const bool packed = a.cu_seqlens_new.has_value();
  const std::int64_t head_k = KvHeadStride(p, a.k), head_v = KvHeadStride(p, a.v);
  const auto element = [](const TensorView& t, std::int64_t offset) {
    return static_cast<char*>(t.data) + offset * static_cast<std::int64_t>(SizeOf(t.dtype));
  };
  ctx.executor.For(static_cast<std::int64_t>(ctx.sequences.size()), [&](std::int64_t b, int) {
    const FpModeGuard mode;
    const Sequence& s = ctx.sequences[static_cast<std::size_t>(b)];
    for (std::int64_t t = 0; t < s.append_count; ++t) {
      const std::int64_t to_k = KvTokenOffset(p, a, s, a.k, s.append_begin + t);
      const std::int64_t to_v = KvTokenOffset(p, a, s, a.v, s.append_begin + t);
      for (std::int64_t h = 0; h < p.heads_kv; ++h) {
        const void* from_k = packed ? k_new.At(s.new_row + t, h, 0) : k_new.At(b, t, h, 0);
        const void* from_v = packed ? v_new.At(s.new_row + t, h, 0) : v_new.At(b, t, h, 0);
        void* k = element(a.k, to_k + h * head_k);
        void* v = element(a.v, to_v + h * head_v);
        if (table.pairs == 0 && k_new.dtype == a.k.dtype) {
          std::memcpy(k, from_k, static_cast<std::size_t>(p.head_dim) * SizeOf(a.k.dtype));
        } else {
          RotateRow(table, s.rotary_base + t, from_k, k_new.dtype, p.head_dim, k, a.k.dtype,
                    DivisorOf(a.k_descale, k_new.dtype, b, h));
        }
        if (v_new.dtype == a.v.dtype) {
          std::memcpy(v, from_v, static_cast<std::size_t>(p.head_dim_v) * SizeOf(a.v.dtype));
        } else {
          RotateRow({}, 0, from_v, v_new.dtype, p.head_dim_v, v, a.v.dtype, DivisorOf(a.v_descale, v_new.dtype, b, h));
        }
      }
    }
  });
}

void RotateQueries(const LaunchContext& ctx, char* to) {
  const Problem& p = ctx.problem;
  const AttentionArgs& a = ctx.args;
  const RotaryTable table = TableOf(ctx);
  const bool packed = a.cu_seqlens_q.has_value();
  const AttentionOptions& o = p.options;
  const bool moves = o.causal || o.window_left || o.window_right || o.chunk;
  const std::int64_t bytes = p.head_dim * static_cast<std::int64_t>(SizeOf(a.q.dtype));
  ctx.executor.For(static_cast<std::int64_t>(ctx.sequences.size()), [&](std::int64_t b, int) {
    const FpModeGuard mode;
    const Sequence& s = ctx.sequences[static_cast<std::size_t>(b)];
    for (std::int64_t i = 0; i < s.seq_q; ++i) {
      const std::int64_t row = packed ? s.q_row + i : b * a.q.shape[1] + i;
      for (std::int64_t h = 0; h < p.heads_q; ++h) {
        const void* from = packed ? a.q.At(row, h, 0) : a.q.At(b, i, h, 0);
        RotateRow(table, s.rotary_base + (moves ? i : 0), from, a.q.dtype, p.head_dim,
                  to + (row * p.heads_q + h) * bytes, a.q.dtype, 1.0f);
      }
    }
  });
}

}  // namespace regard::cpu
