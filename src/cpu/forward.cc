#include "src/cpu/forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "src/core/env.h"
#include "src/core/fp_mode.h"
#include "src/cpu/append.h"
#include "src/cpu/schedule.h"
#include "src/problem/extent.h"

namespace regard::cpu {

Range VisibleRange(const ForwardParams& p, const Seq& s, std::int64_t i) {
  Sequence sequence;
  sequence.seq_kv = s.seq_kv;
  sequence.q_offset = s.q_offset;
  sequence.leftpad = s.leftpad;
  const KeyRange r = VisibleKeys(*static_cast<const AttentionOptions*>(p.options), sequence, i);
  return {r.begin - s.leftpad, r.end - s.leftpad};
}

float LseOf(float m, float l) {
  if (l == 0.0f) return -std::numeric_limits<float>::infinity();
  const double lse = static_cast<double>(m) + std::log(static_cast<double>(l));
  return lse != lse ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(lse);
}

float LoadElem(const void* p, Elem t) { return LoadFloat(p, static_cast<DType>(t), 0); }
void StoreElem(void* p, Elem t, float x) { StoreFloat(p, static_cast<DType>(t), 0, x); }

namespace {

static_assert(static_cast<int>(Elem::kF8E5M2) == static_cast<int>(DType::kF8E5M2));
Elem ElemOf(DType t) { return static_cast<Elem>(t); }

std::int64_t Bytes(const TensorView& v, int d) {
  return v.stride[static_cast<std::size_t>(d)] * static_cast<std::int64_t>(SizeOf(v.dtype));
}

bool UsesDecode(const CpuConfig& config) { return config.phase != Phase::kPrefill; }

std::size_t Align(std::size_t n) { return (n + 63) / 64 * 64; }

// How the workspace of a launch is laid out. Everything is in units of bytes, each part 64-byte aligned.
struct Layout {
  ScheduleLimits limits;
  std::int64_t state_floats = 0, scratch_floats = 0;
  std::int64_t kept_blocks = 0, kept_floats = 0;  // of a slot; of a block
  std::size_t seqs, tasks, combines, states, rotated, scratch, kept_users, kept_states, kept, total;

  Layout(const CpuConfig& config, const Problem& p, int threads, const Tuning& tuning) {
    limits = LimitsFor(p, UsesDecode(config), threads, tuning);
    const int d = static_cast<int>(p.head_dim), dv = static_cast<int>(p.head_dim_v), qv = p.qv ? dv : 0;
    state_floats = config.kernels->state_floats(dv);
    scratch_floats = config.kernels->scratch_floats(d, qv, dv);
    std::size_t at = 0;
    const auto take = [&](std::int64_t count, std::size_t size) {
      const std::size_t begin = at;
      at += Align(static_cast<std::size_t>(count) * size);
      return begin;
    };
    seqs = take(p.batch, sizeof(Seq));
    tasks = take(limits.tasks, sizeof(Task));
    combines = take(limits.combines, sizeof(Combine));
    states = take(limits.states * state_floats, sizeof(float));
    rotated = take(static_cast<std::int64_t>(RotatedQueryBytes(p)), 1);
    scratch = take(threads, Align(static_cast<std::size_t>(scratch_floats) * sizeof(float)));
    kept_floats = config.kernels->kept_floats(d, qv, dv);
    const std::int64_t block_bytes = kept_floats * static_cast<std::int64_t>(sizeof(float));
    kept_blocks = std::min((p.seq_kv + tuning[Tuning::kBlock] - 1) / tuning[Tuning::kBlock],
                           (tuning[Tuning::kKeep] << 20) / block_bytes);
    if (kept_blocks == 0) limits.slots = 0;
    kept_users = take(limits.slots, sizeof(std::uint64_t));
    kept_states = take(limits.slots * kept_blocks, sizeof(std::uint64_t));
    kept = take(limits.slots * kept_blocks, static_cast<std::size_t>(block_bytes));
    total = at;
  }
};

// What a plan keeps for its launches.
struct CpuPlan {
  Tuning tuning;
  Layout layout;
};

BroadcastView Broadcast(const std::optional<TensorView>& v) {
  if (!v) return {};
  const auto stride = [&](int d) { return v->shape[static_cast<std::size_t>(d)] == 1 ? 0 : Bytes(*v, d); };
  return {static_cast<const char*>(v->data), stride(0), stride(1), stride(2), stride(3)};
}

KvView ViewOf(const Problem& p, const TensorView& v) {
  const std::int64_t size = static_cast<std::int64_t>(SizeOf(v.dtype));
  KvView r{static_cast<const char*>(v.data), Bytes(v, 0), 0, KvHeadStride(p, v) * size};
  r.token_stride = p.page_size ? Bytes(v, p.layout == KvLayout::kNHD ? 1 : 2) : p.varlen ? 0 : Bytes(v, 1);
  return r;
}

void SetDescale(const std::optional<TensorView>& v, const float*& data, std::int64_t (&stride)[2]) {
  if (!v) return;
  data = static_cast<const float*>(v->data);
  stride[0] = v->stride[0];
  stride[1] = v->stride[1];
}

void SetQueries(const TensorView& v, bool varlen, const char*& data, std::int64_t& b, std::int64_t& s, std::int64_t& h) {
  data = static_cast<const char*>(v.data);
  b = varlen ? 0 : Bytes(v, 0);
  s = Bytes(v, varlen ? 0 : 1);
  h = Bytes(v, varlen ? 1 : 2);
}

// 2^32 * p is exact, and below 2^32 for p < 1.
void SetDropout(double dropout, const AttentionArgs& a, ForwardParams& f) {
  f.drops = dropout > 0;
  f.drop_threshold = dropout < 1 ? static_cast<std::uint32_t>(std::floor(dropout * 4294967296.0)) : 0;
  f.drop_scale = dropout < 1 ? static_cast<float>(1 / (1 - dropout)) : 0.0f;
  f.drop_seed = a.dropout_seed;
  f.drop_offset = a.dropout_offset;
}

}  // namespace

ForwardParams ForwardParamsOf(const LaunchContext& ctx) {
  const Problem& p = ctx.problem;
  const AttentionArgs& a = ctx.args;
  ForwardParams f{};
  f.batch = static_cast<std::int64_t>(ctx.sequences.size());
  f.heads_q = p.heads_q;
  f.heads_kv = p.heads_kv;
  f.group = p.Group();
  f.head_dim = static_cast<int>(p.head_dim);
  f.head_dim_v = static_cast<int>(p.head_dim_v);
  f.qv_dim = a.qv ? f.head_dim_v : 0;
  f.varlen = a.cu_seqlens_q.has_value();
  SetQueries(a.q, f.varlen, f.q, f.q_stride_b, f.q_stride_s, f.q_stride_h);
  if (a.qv) SetQueries(*a.qv, f.varlen, f.qv, f.qv_stride_b, f.qv_stride_s, f.qv_stride_h);
  const char* out = nullptr;
  SetQueries(a.out, f.varlen, out, f.out_stride_b, f.out_stride_s, f.out_stride_h);
  f.out = static_cast<char*>(a.out.data);
  if (a.lse) {
    f.lse = static_cast<float*>(a.lse->data);
    f.lse_stride_b = f.varlen ? 0 : a.lse->stride[0];
    f.lse_stride_h = a.lse->stride[f.varlen ? 0 : 1];
    f.lse_stride_s = a.lse->stride[f.varlen ? 1 : 2];
  }
  f.k = ViewOf(p, a.k);
  f.v = ViewOf(p, a.v);
  f.q_type = ElemOf(a.q.dtype);
  f.kv_type = ElemOf(a.k.dtype);
  f.out_type = ElemOf(a.out.dtype);
  f.kv_kind = p.page_size ? KvKind::kPaged : p.varlen ? KvKind::kPacked : KvKind::kDense;
  if (p.page_size) {
    f.page_size = *p.page_size;
    const bool csr = p.table == TableKind::kCsr;
    f.table = static_cast<const std::int32_t*>(csr ? a.kv_indices->data : a.block_table->data);
    f.table_stride = csr ? 1 : a.block_table->stride[0];
  }
  f.options = &p.options;
  f.scale = static_cast<float>(p.Scale());
  f.softcap = static_cast<float>(p.options.softcap);
  f.transforms = f.softcap > 0 || a.alibi_slopes || a.bias || a.score_mod.fn;
  f.masks = a.mask || a.mask_mod.fn;
  if (a.alibi_slopes) {
    f.alibi = static_cast<const float*>(a.alibi_slopes->data);
    f.alibi_stride_b = a.alibi_slopes->rank == 2 ? a.alibi_slopes->stride[0] : 0;
  }
  f.bias = Broadcast(a.bias);
  if (a.bias) f.bias_type = ElemOf(a.bias->dtype);
  f.mask = Broadcast(a.mask);
  f.score_mod = a.score_mod.fn;
  f.score_mod_ctx = a.score_mod.ctx;
  f.mask_mod = a.mask_mod.fn;
  f.mask_mod_ctx = a.mask_mod.ctx;
  if (a.sink) {
    f.sink = a.sink->data;
    f.sink_type = ElemOf(a.sink->dtype);
  }
  SetDropout(p.options.dropout, a, f);
  SetDescale(a.q_descale, f.q_descale, f.q_descale_stride);
  SetDescale(a.k_descale, f.k_descale, f.k_descale_stride);
  SetDescale(a.v_descale, f.v_descale, f.v_descale_stride);
  return f;
}

namespace {

// Row `row` of batch entry b (packed: of the whole tensor) that no sequence owns: out 0, lse -inf.
void FillRow(const ForwardParams& f, std::int64_t b, std::int64_t row) {
  static constexpr std::size_t kSizes[] = {4, 2, 2, 1, 1};
  const std::size_t bytes = static_cast<std::size_t>(f.head_dim_v) * kSizes[static_cast<int>(f.out_type)];
  for (std::int64_t h = 0; h < f.heads_q; ++h) {
    std::memset(f.out + b * f.out_stride_b + row * f.out_stride_s + h * f.out_stride_h, 0, bytes);
    if (f.lse) {
      f.lse[b * f.lse_stride_b + h * f.lse_stride_h + row * f.lse_stride_s] = -std::numeric_limits<float>::infinity();
    }
  }
}

void FillUnowned(const ForwardParams& f, const AttentionArgs& a) {
  std::int64_t owned = 0;
  for (std::int64_t b = 0; b < f.batch; ++b) {
    const Seq& s = f.seqs[b];
    for (std::int64_t i = s.seq_q; i < s.rows; ++i) FillRow(f, b, f.varlen ? s.q_row + i : i);
    owned = s.q_row + s.rows;
  }
  if (f.varlen) {
    for (std::int64_t row = owned; row < a.out.shape[0]; ++row) FillRow(f, 0, row);
  }
}

std::span<PhaseTimes> profile;  // of ProfilePhases

}  // namespace

void ProfilePhases(std::span<PhaseTimes> workers) { profile = workers; }
std::uint64_t* PhaseTicksOf(int worker) {
  return static_cast<std::size_t>(worker) < profile.size() ? profile[static_cast<std::size_t>(worker)].ticks : nullptr;
}

KernelPlan PlanForward(const CpuConfig& config, const char* numerics, const Problem& p, int threads) {
  const Tuning tuning = TuningFor(TuneVariable());
  const Layout layout(config, p, threads, tuning);
  KernelPlan plan;
  plan.shape.rows_per_tile = config.kernels->rows;
  plan.shape.rows_per_task = tuning[Tuning::kTaskRows];
  plan.shape.kv_block_tokens = tuning[Tuning::kBlock];
  plan.shape.kv_split_tokens = tuning[Tuning::kSplit];
  plan.shape.max_tasks = layout.limits.tasks;
  plan.shape.threads = threads;
  plan.shape.settings = SettingsOf(tuning);
  plan.workspace_bytes = layout.total;
  if (!tuning.HasDefaultNumerics()) plan.numerics = NumericsWith(tuning, numerics);
  plan.own = std::make_shared<const CpuPlan>(CpuPlan{tuning, layout});
  return plan;
}

void LaunchForward(const CpuConfig& config, const LaunchContext& ctx) {
  const FpModeGuard mode;  // the scale is rounded here
  const int threads = ctx.plan.shape.threads;
  const auto& kept = *static_cast<const CpuPlan*>(ctx.plan.own.get());
  const Tuning& tuning = kept.tuning;
  const Layout& layout = kept.layout;
  std::byte* const base = ctx.workspace.data();
  ForwardParams f = ForwardParamsOf(ctx);
  f.block_tokens = static_cast<int>(tuning[Tuning::kBlock]);
  f.split_tokens = static_cast<int>(tuning[Tuning::kSplit]);
  f.prefetch_panels = static_cast<int>(tuning[Tuning::kPrefetch]);

  Seq* const seqs = reinterpret_cast<Seq*>(base + layout.seqs);
  for (std::int64_t b = 0; b < f.batch; ++b) {
    const Sequence& s = ctx.sequences[static_cast<std::size_t>(b)];
    seqs[b] = {s.q_row, s.rows, s.seq_q, s.seq_kv, s.q_offset, s.leftpad, s.kv_row};
  }
  f.seqs = seqs;
  f.states = reinterpret_cast<float*>(base + layout.states);
  f.state_floats = layout.state_floats;
  f.kept = {layout.limits.slots, layout.kept_blocks, layout.kept_floats, reinterpret_cast<float*>(base + layout.kept),
            reinterpret_cast<std::uint64_t*>(base + layout.kept_users),
            reinterpret_cast<std::uint64_t*>(base + layout.kept_states)};
  std::memset(base + layout.kept_users, 0, layout.kept - layout.kept_users);

  if (ctx.args.k_new) {
    AppendKv(ctx);
    if (ctx.problem.options.rotary != Rotary::kNone) {
      char* const rotated = reinterpret_cast<char*>(base + layout.rotated);
      RotateQueries(ctx, rotated);
      f.q = rotated;
      f.q_stride_h = f.head_dim * static_cast<std::int64_t>(SizeOf(ctx.args.q.dtype));
      f.q_stride_s = f.q_stride_h * f.heads_q;
      f.q_stride_b = f.varlen ? 0 : f.q_stride_s * ctx.args.q.shape[1];
    }
  }
  FillUnowned(f, ctx.args);

  const std::size_t scratch_bytes = Align(static_cast<std::size_t>(layout.scratch_floats) * sizeof(float));
  const auto scratch = [&](int worker) {
    return reinterpret_cast<float*>(base + layout.scratch + static_cast<std::size_t>(worker) * scratch_bytes);
  };
  // The parameters as one worker sees them: its own counters where a profile is taken.
  const auto params = [&](int worker, ForwardParams& own) -> const ForwardParams& {
    std::uint64_t* const ticks = PhaseTicksOf(worker);
    if (!ticks) return f;
    own = f;
    own.phase_ticks = ticks;
    return own;
  };
  Scheduler scheduler(
      f, UsesDecode(config), threads, tuning,
      {reinterpret_cast<Task*>(base + layout.tasks), static_cast<std::size_t>(layout.limits.tasks)},
      {reinterpret_cast<Combine*>(base + layout.combines), static_cast<std::size_t>(layout.limits.combines)},
      layout.limits.states);
  while (!scheduler.Done()) {
    const Schedule wave = scheduler.NextWave();
    const auto tasks = static_cast<std::int64_t>(wave.tasks.size());
    const auto combines = static_cast<std::int64_t>(wave.combines.size());
    const auto run = [&](std::int64_t n, int worker) {
      const FpModeGuard task_mode;
      ForwardParams own;
      config.kernels->run(params(worker, own), wave.tasks[static_cast<std::size_t>(n)], scratch(worker));
    };
    if (tasks == 1) {
      run(0, 0);
    } else if (tasks > 1) {
      ctx.executor.For(tasks, run);
    }
    if (combines == 0) continue;
    ctx.executor.For(combines * f.heads_q, [&](std::int64_t n, int worker) {
      const FpModeGuard task_mode;
      const Combine& c = wave.combines[static_cast<std::size_t>(n / f.heads_q)];
      ForwardParams own;
      const ForwardParams& mine = params(worker, own);
      for (std::int64_t i = 0; i < f.seqs[c.b].seq_q; ++i) {
        config.kernels->combine(mine, c, n % f.heads_q, i, scratch(worker));
      }
    });
  }
}

}  // namespace regard::cpu
