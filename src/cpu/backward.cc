#include "src/cpu/backward.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "src/core/fp_mode.h"
#include "src/cpu/forward.h"

namespace regard::cpu {
namespace {

std::size_t Align(std::size_t n) { return (n + 63) / 64 * 64; }

std::int64_t Bytes(const TensorView& v, int d) {
  return v.stride[static_cast<std::size_t>(d)] * static_cast<std::int64_t>(SizeOf(v.dtype));
}

Elem ElemOf(DType t) { return static_cast<Elem>(t); }

// What the scratch of a worker depends on.
BackwardParams BoundsOf(const Problem& p) {
  BackwardParams b{};
  b.f.head_dim = static_cast<int>(p.head_dim);
  b.f.head_dim_v = static_cast<int>(p.head_dim_v);
  b.f.group = p.Group();
  b.f.softcap = static_cast<float>(p.options.softcap);
  b.f.drops = p.options.dropout > 0;
  b.dout_type = Elem::kF32;
  b.max_keys = p.seq_kv;
  return b;
}

// The unit of work is a kv head of a sequence with its whole group, whose sums dk and dv a worker keeps; or, where that
// would leave threads idle, a query head, with sums of its own for each. A group folds head by head either way.
bool SplitsGroups(const Problem& p, int threads) {
  const std::int64_t units = p.batch * p.heads_kv;
  return p.Group() > 1 && units > 0 && (units < threads || (units < 4 * threads && units % threads != 0));
}

struct Layout {
  std::int64_t sum_k, sum_v;  // floats of dk and of dv of one sequence and head
  std::int64_t scratch_floats;
  std::size_t seqs, order, dsink, sums, scratch, total;

  Layout(const BackwardConfig& config, const Problem& p, int threads) {
    const BackwardKernels& kernels = *config.kernels;
    const std::int64_t keys = (p.seq_kv + 127) / 128 * 128;
    sum_k = keys * kernels.columns(static_cast<int>(p.head_dim));
    sum_v = keys * kernels.columns(static_cast<int>(p.head_dim_v));
    scratch_floats = kernels.scratch_floats(BoundsOf(p), p.dbias);
    std::size_t at = 0;
    const auto take = [&](std::int64_t count, std::size_t size) {
      const std::size_t begin = at;
      at += Align(static_cast<std::size_t>(count) * size);
      return begin;
    };
    seqs = take(p.batch, sizeof(Seq));
    order = take(p.batch, sizeof(std::int32_t));
    dsink = take(p.dsink ? p.batch * p.heads_q : 0, sizeof(double));
    sums = take((SplitsGroups(p, threads) ? p.batch * p.heads_q : threads) * (sum_k + sum_v), sizeof(float));
    scratch = take(threads, Align(static_cast<std::size_t>(scratch_floats) * sizeof(float)));
    total = at;
  }
};

GradView ViewOf(const TensorView& v, bool packed) {
  return {static_cast<char*>(v.data), packed ? 0 : Bytes(v, 0), Bytes(v, packed ? 0 : 1), Bytes(v, packed ? 1 : 2),
          ElemOf(v.dtype)};
}

BackwardParams ParamsOf(const LaunchContext& ctx) {
  const BackwardArgs& a = *ctx.backward;
  BackwardParams p{};
  p.f = ForwardParamsOf(ctx);
  p.f.block_tokens = kBlockTokens;
  p.f.split_tokens = kSplitTokens;
  p.max_keys = ctx.problem.seq_kv;
  p.dout = static_cast<const char*>(a.dout.data);
  p.dout_type = ElemOf(a.dout.dtype);
  p.dout_stride_b = p.f.varlen ? 0 : Bytes(a.dout, 0);
  p.dout_stride_s = Bytes(a.dout, p.f.varlen ? 0 : 1);
  p.dout_stride_h = Bytes(a.dout, p.f.varlen ? 1 : 2);
  if (a.dlse) {
    p.dlse = static_cast<const float*>(a.dlse->data);
    p.dlse_stride_b = p.f.varlen ? 0 : a.dlse->stride[0];
    p.dlse_stride_h = a.dlse->stride[p.f.varlen ? 0 : 1];
    p.dlse_stride_s = a.dlse->stride[p.f.varlen ? 1 : 2];
  }
  p.dq = ViewOf(a.dq, p.f.varlen);
  p.dk = ViewOf(a.dk, ctx.problem.varlen);
  p.dv = ViewOf(a.dv, ctx.problem.varlen);
  return p;
}

// Rows [begin, end) of `heads` heads of `dim` elements become 0.
void ZeroRows(const GradView& v, std::int64_t b, std::int64_t begin, std::int64_t end, std::int64_t heads, int dim) {
  const std::size_t bytes = static_cast<std::size_t>(dim) * SizeOf(static_cast<DType>(v.type));
  for (std::int64_t row = begin; row < end; ++row) {
    for (std::int64_t h = 0; h < heads; ++h) std::memset(v.data + b * v.b + row * v.s + h * v.h, 0, bytes);
  }
}

// Gradients of rows that no sequence uses.
void ZeroUnused(const BackwardParams& p, const BackwardArgs& a, bool packed_keys) {
  const ForwardParams& f = p.f;
  std::int64_t query = 0, key = 0;  // packed rows dealt with
  const auto zero_keys = [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    ZeroRows(p.dk, b, begin, end, f.heads_kv, f.head_dim);
    ZeroRows(p.dv, b, begin, end, f.heads_kv, f.head_dim_v);
  };
  for (std::int64_t b = 0; b < f.batch; ++b) {
    const Seq& s = f.seqs[b];
    const std::int64_t leftpad = std::min(s.leftpad, s.seq_kv);
    if (f.varlen) {
      ZeroRows(p.dq, 0, query, s.q_row, f.heads_q, f.head_dim);
      query = s.q_row + s.seq_q;
    } else {
      ZeroRows(p.dq, b, s.seq_q, s.rows, f.heads_q, f.head_dim);
    }
    if (packed_keys) {
      zero_keys(0, key, s.kv_row + leftpad);
      key = s.kv_row + s.seq_kv;
    } else {
      zero_keys(b, 0, leftpad);
      zero_keys(b, s.seq_kv, a.dk.shape[1]);
    }
  }
  if (f.varlen) ZeroRows(p.dq, 0, query, a.dq.shape[0], f.heads_q, f.head_dim);
  if (packed_keys) zero_keys(0, key, a.dk.shape[0]);
}

// dk and dv of one kv head of a sequence, from the sums of its group.
void StoreKeys(const BackwardKernels& kernels, const BackwardParams& p, bool packed_keys, std::int64_t b,
               std::int64_t head_kv, const float* dk, const float* dv) {
  const ForwardParams& f = p.f;
  const Seq& s = f.seqs[b];
  const auto store = [&](const GradView& to, const float* from, int dim, float factor) {
    const std::int64_t columns = kernels.columns(dim);
    char* at = to.data + (packed_keys ? 0 : b * to.b) + ((packed_keys ? s.kv_row : 0) + s.leftpad) * to.s + head_kv * to.h;
    for (std::int64_t j = s.leftpad; j < s.seq_kv; ++j, from += columns, at += to.s) {
      kernels.store(from, factor, dim, to.type, at);
    }
  };
  store(p.dk, dk, f.head_dim, f.scale);
  store(p.dv, dv, f.head_dim_v, 1.0f);
}

// Every tile of dbias is a task. Extents: (B|1, Hq|1, Sq|1, Skv|1).
void RunBiasTiles(const BackwardConfig& config, const LaunchContext& ctx, const BackwardParams& p,
                  const std::int64_t (&full)[4], std::byte* scratch, std::size_t scratch_bytes) {
  const TensorView& to = *ctx.backward->dbias;
  const bool one_row = to.shape[2] == 1 && full[2] != 1, one_column = to.shape[3] == 1 && full[3] != 1;
  const std::int64_t rows = one_row ? 1 : (to.shape[2] + kBiasTileQueries - 1) / kBiasTileQueries;
  const std::int64_t columns = one_column ? 1 : (to.shape[3] + kBiasTileKeys - 1) / kBiasTileKeys;
  const std::int64_t tiles = rows * columns;
  ctx.executor.For(to.shape[0] * to.shape[1] * tiles, [&](std::int64_t n, int worker) {
    const FpModeGuard mode;
    const std::int64_t b = n / tiles / to.shape[1], h = n / tiles % to.shape[1];
    const std::int64_t i = n % tiles / columns * kBiasTileQueries, j = n % columns * kBiasTileKeys;
    BiasTask task{};
    task.b_begin = to.shape[0] == 1 ? 0 : b;
    task.b_end = to.shape[0] == 1 ? p.f.batch : b + 1;
    task.h_begin = to.shape[1] == 1 ? 0 : h;
    task.h_end = to.shape[1] == 1 ? p.f.heads_q : h + 1;
    task.i_begin = i;
    task.i_end = one_row ? full[2] : std::min(i + kBiasTileQueries, full[2]);
    task.j_begin = j;
    task.j_end = one_column ? full[3] : std::min(j + kBiasTileKeys, full[3]);
    task.one_row = one_row;
    task.one_column = one_column;
    task.to = static_cast<char*>(to.data) + b * Bytes(to, 0) + h * Bytes(to, 1) + i * Bytes(to, 2) + j * Bytes(to, 3);
    task.row_bytes = Bytes(to, 2);
    task.column_bytes = Bytes(to, 3);
    task.type = ElemOf(to.dtype);
    config.kernels->bias(p, task, reinterpret_cast<float*>(scratch + static_cast<std::size_t>(worker) * scratch_bytes));
  });
}

}  // namespace

KernelPlan PlanBackward(const BackwardConfig& config, const Problem& p, int threads) {
  const Layout layout(config, p, threads);
  KernelPlan plan;
  plan.shape.rows_per_tile = 8;
  plan.shape.rows_per_task = kGradQueries;
  plan.shape.kv_block_tokens = 128;
  plan.shape.kv_split_tokens = kGradKeys;
  plan.shape.max_tasks = p.batch * (SplitsGroups(p, threads) ? p.heads_q : p.heads_kv);
  plan.shape.threads = threads;
  plan.workspace_bytes = layout.total;
  plan.own = std::make_shared<const Layout>(layout);
  return plan;
}

void LaunchBackward(const BackwardConfig& config, const LaunchContext& ctx) {
  const FpModeGuard mode;
  const BackwardKernels& kernels = *config.kernels;
  const auto& layout = *static_cast<const Layout*>(ctx.plan.own.get());
  const int threads = ctx.plan.shape.threads;
  std::byte* const base = ctx.workspace.data();
  BackwardParams p = ParamsOf(ctx);
  ForwardParams& f = p.f;
  Seq* const seqs = reinterpret_cast<Seq*>(base + layout.seqs);
  std::int32_t* const order = reinterpret_cast<std::int32_t*>(base + layout.order);
  for (std::int64_t b = 0; b < f.batch; ++b) {
    const Sequence& s = ctx.sequences[static_cast<std::size_t>(b)];
    seqs[b] = {s.q_row, s.rows, s.seq_q, s.seq_kv, s.q_offset, s.leftpad, s.kv_row};
    order[b] = static_cast<std::int32_t>(b);
  }
  f.seqs = seqs;
  // Longest first.
  std::sort(order, order + f.batch, [&](std::int32_t x, std::int32_t y) {
    const std::int64_t work_x = seqs[x].seq_q * seqs[x].seq_kv, work_y = seqs[y].seq_q * seqs[y].seq_kv;
    return work_x != work_y ? work_x > work_y : x < y;
  });
  if (ctx.backward->dsink) p.dsink = reinterpret_cast<double*>(base + layout.dsink);
  const bool packed_keys = ctx.problem.varlen;
  ZeroUnused(p, *ctx.backward, packed_keys);

  const std::size_t scratch_bytes = Align(static_cast<std::size_t>(layout.scratch_floats) * sizeof(float));
  const auto scratch = [&](int worker) {
    return reinterpret_cast<float*>(base + layout.scratch + static_cast<std::size_t>(worker) * scratch_bytes);
  };
  // As one worker sees them: its own counters where a profile is taken.
  const auto params = [&](int worker, BackwardParams& own) -> const BackwardParams& {
    std::uint64_t* const ticks = PhaseTicksOf(worker);
    if (!ticks) return p;
    own = p;
    own.f.phase_ticks = ticks;
    return own;
  };
  const auto sums = [&](std::int64_t n) {
    return reinterpret_cast<float*>(base + layout.sums) + n * (layout.sum_k + layout.sum_v);
  };
  if (!SplitsGroups(ctx.problem, threads)) {
    ctx.executor.For(f.batch * f.heads_kv, [&](std::int64_t n, int worker) {
      const FpModeGuard task_mode;
      BackwardParams own;
      const GradTask task{order[n / f.heads_kv], n % f.heads_kv, 0, f.group};
      float *const dk = sums(worker), *const dv = dk + layout.sum_k;
      kernels.run(params(worker, own), task, dk, dv, scratch(worker));
      StoreKeys(kernels, p, packed_keys, task.b, task.head_kv, dk, dv);
    });
  } else {
    ctx.executor.For(f.batch * f.heads_q, [&](std::int64_t n, int worker) {
      const FpModeGuard task_mode;
      BackwardParams own;
      const std::int64_t b = order[n / f.heads_q], h = n % f.heads_q;
      float *const dk = sums(b * f.heads_q + h), *const dv = dk + layout.sum_k;
      kernels.run(params(worker, own), {b, h / f.group, h % f.group, h % f.group + 1}, dk, dv, scratch(worker));
    });
    ctx.executor.For(f.batch * f.heads_kv, [&](std::int64_t n, int) {
      const FpModeGuard task_mode;
      const std::int64_t b = n / f.heads_kv, head_kv = n % f.heads_kv;
      const std::int64_t keys = std::max<std::int64_t>(f.seqs[b].seq_kv - f.seqs[b].leftpad, 0);
      float *const dk = sums(b * f.heads_q + head_kv * f.group), *const dv = dk + layout.sum_k;
      for (std::int64_t g = 1; g < f.group; ++g) {
        const float* from = sums(b * f.heads_q + head_kv * f.group + g);
        kernels.add(from, keys * kernels.columns(f.head_dim), dk);
        kernels.add(from + layout.sum_k, keys * kernels.columns(f.head_dim_v), dv);
      }
      StoreKeys(kernels, p, packed_keys, b, head_kv, dk, dv);
    });
  }
  if (p.dsink) {
    const TensorView& to = *ctx.backward->dsink;
    for (std::int64_t h = 0; h < f.heads_q; ++h) {
      double sum = 0;
      for (std::int64_t b = 0; b < f.batch; ++b) sum += p.dsink[b * f.heads_q + h];
      static_cast<float*>(to.data)[h * to.stride[0]] = static_cast<float>(sum);
    }
  }
  if (ctx.backward->dbias) {
    p.dsink = nullptr;
    std::int64_t full[4] = {f.batch, f.heads_q, 0, 0};
    for (std::int64_t b = 0; b < f.batch; ++b) {
      full[2] = std::max(full[2], seqs[b].rows);
      full[3] = std::max(full[3], packed_keys ? seqs[b].seq_kv : ctx.backward->dk.shape[1]);
    }
    const TensorView& to = *ctx.backward->dbias;
    for (int d = 2; d < 4; ++d) full[d] = std::max(full[d], to.shape[static_cast<std::size_t>(d)]);
    RunBiasTiles(config, ctx, p, full, base + layout.scratch, scratch_bytes);
  }
}

}  // namespace regard::cpu
