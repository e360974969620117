// The workspace of a launch, on the device: queries after rotation, then the states of splits, each 256-byte aligned.
// A prefill kernel walks tiles, so that no more blocks than the chip holds at once are started where each needs a slot
// of states; a decode step has a block a split, and the combine kernel folds their states.
#include "src/cuda/forward.h"

#include <algorithm>
#include <string>

#include "regard/status.h"
#include "src/cuda/driver/device_error.h"
#include "src/cuda/driver/functions.h"
#include "src/cuda/instances.h"
#include "src/cuda/params_of.h"
#include "src/problem/sequence.h"

namespace regard::cuda {
namespace {

constexpr std::size_t kAlign = 256;
std::size_t RoundUp(std::size_t n) {
  return (n + kAlign - 1) / kAlign * kAlign;
}

// What a plan keeps for its launches.
struct ForwardPlan {
  int device = 0;
  CudaFunction attend, combine, append;  // compiled for a GPU of this machine only
  bool split = false;
  std::int64_t tile_rows = 1, state_floats = 1;
  std::int64_t most_slots = 0;       // of states in the workspace
  std::int64_t resident_blocks = 1;  // that the chip holds at once
  std::size_t states = 0;            // where they begin in the workspace
};

// Blocks that all multiprocessors hold at once, by shared memory (1 KiB a block is the system's), registers (255 a
// thread) and threads. An estimate: more or fewer change no bit.
std::int64_t ResidentBlocks(const GpuCaps& gpu, const KernelInstance& instance) {
  const std::int64_t by_shared = (gpu.shared_per_block_bytes + 1024) / (std::int64_t{instance.shared_bytes} + 1024);
  const std::int64_t by_registers = 65536 / (256 * std::int64_t{instance.threads});
  return std::max<std::int64_t>(std::min(by_shared, by_registers), 1) * std::max(gpu.multiprocessors, 1);
}

// The numbers of one launch within the bounds of its plan.
struct Cut {
  std::int64_t row_tiles = 0, splits = 1, blocks = 0;
};

Cut CutOf(const ForwardPlan& plan, const regard::Problem& p, std::int64_t batch, std::int64_t queries,
          std::int64_t keys) {
  Cut cut;
  cut.row_tiles = std::max<std::int64_t>((queries * p.Group() + plan.tile_rows - 1) / plan.tile_rows, 1);
  cut.splits = std::max<std::int64_t>((keys + kSplitKeys - 1) / kSplitKeys, 1);
  const std::int64_t tiles = batch * p.heads_kv * cut.row_tiles;
  cut.blocks = plan.split ? tiles * cut.splits : tiles;
  if (!plan.split && cut.splits > 1) cut.blocks = std::min(cut.blocks, plan.resident_blocks);
  // One block at least: rows that no sequence owns are written too.
  cut.blocks = std::max<std::int64_t>(cut.blocks, 1);
  return cut;
}

std::size_t RotatedBytes(const regard::Problem& p) {
  if (p.options.rotary == Rotary::kNone) return 0;
  return static_cast<std::size_t>(p.batch * p.seq_q * p.heads_q * p.head_dim) * SizeOf(p.dtype);
}

}  // namespace

KernelPlan PlanForward(const CudaRow& row, const regard::Problem& p, const DeviceCaps& caps) {
  RequireIndexable(p, RunsSplit(p) ? p.seq_kv / kSplitKeys + 1 : 1);
  const GpuCaps& gpu = *caps.gpu;
  auto own = std::make_shared<ForwardPlan>();
  own->split = RunsSplit(p);
  if (row.generation == Generation::kGeneric) {
    const GenericConfig config = GenericConfigFor(p);
    own->tile_rows = config.TileRows();
    own->state_floats = StateFloats(config);
  } else {
    const TensorConfig config = TensorConfigFor(p, gpu).value();  // supports() has asked
    own->tile_rows = config.TileRows();
    own->state_floats = StateFloats(config);
  }
  KernelPlan plan;
  for (const NeededInstance& needed : InstancesOf(row.generation, p, gpu)) {
    plan.shape.instances.push_back(needed.instance.name);
    if (needed.role == Role::kAttend) {
      own->resident_blocks = ResidentBlocks(gpu, needed.instance);
      plan.shape.threads = needed.instance.threads;
    }
    if (!gpu.index) continue;
    own->device = *gpu.index;
    CudaFunction& function = needed.role == Role::kAppend    ? own->append
                             : needed.role == Role::kCombine ? own->combine
                                                             : own->attend;
    function = GetFunction(own->device, needed.instance);
  }
  if (gpu.index) DeviceErrorFlag::Of(own->device);  // takes its memory now: a launch may be captured into a graph
  const Cut cut = CutOf(*own, p, p.batch, p.seq_q, p.seq_kv);
  own->most_slots = cut.splits > 1 ? cut.blocks : 0;
  own->states = RoundUp(RotatedBytes(p));
  plan.workspace_bytes =
      own->states + RoundUp(static_cast<std::size_t>(own->most_slots * own->state_floats) * sizeof(float));
  plan.shape.rows_per_tile = 16;
  plan.shape.rows_per_task = own->tile_rows;
  plan.shape.kv_block_tokens = kBlockKeys;
  plan.shape.kv_split_tokens = kSplitKeys;
  plan.shape.max_tasks = cut.blocks;
  plan.own = std::move(own);
  return plan;
}

void LaunchForward(const LaunchContext& ctx) {
  const auto& plan = *static_cast<const ForwardPlan*>(ctx.plan.own.get());
  const regard::Problem& p = ctx.problem;
  unsigned* const error = DeviceErrorFlag::Of(plan.device).device_pointer();
  const auto stream = static_cast<abi::CUstream>(ctx.stream.handle);
  const auto launch = [&](const CudaFunction& function, Dim3 grid, const auto& params) {
    LaunchKernel(function, grid, {static_cast<unsigned>(function.threads), 1, 1}, function.shared_bytes, stream,
                 &params, sizeof params);
  };
  ForwardParams f = ForwardParamsOf(ctx, error);
  if (f.shape.batch == 0 && f.shape.packed_q == 0) return;
  if (ctx.args.k_new) {
    const AppendParams append = AppendParamsOf(ctx, error, ctx.workspace.data());
    std::int64_t rows = append.shape.batch * p.append.value_or(0) * p.heads_kv;
    if (append.rotary != 0) {
      rows += append.shape.batch * LongestQueries(p, ctx.args) * p.heads_q;
      f.q = append.q_out;
    }
    launch(plan.append, RowGrid(rows), append);
  }
  const Cut cut = CutOf(plan, p, f.shape.batch, LongestQueries(p, ctx.args), LongestKeys(p, ctx.args));
  f.row_tiles = static_cast<i32>(cut.row_tiles);
  f.splits = static_cast<i32>(cut.splits);
  if (plan.most_slots > 0) f.states = reinterpret_cast<float*>(ctx.workspace.data() + plan.states);
  launch(plan.attend, GridOf(cut.blocks), f);
  if (plan.split && cut.splits > 1) {
    launch(plan.combine, RowGrid(f.shape.batch * p.heads_kv * cut.row_tiles * plan.tile_rows), f);
  }
}

}  // namespace regard::cuda
