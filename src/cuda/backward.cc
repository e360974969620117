// The workspace of a launch, on the device: delta, one f32 a query row and head of the plan's bounds.
#include "src/cuda/backward.h"

#include <algorithm>
#include <iterator>

#include "src/cuda/driver/device_error.h"
#include "src/cuda/driver/functions.h"
#include "src/cuda/instances.h"
#include "src/cuda/params_of.h"

namespace regard::cuda {
namespace {

struct BackwardPlan {
  int device = 0;
  CudaFunction part[std::size(kBackwardParts)];  // compiled for a GPU of this machine only; bias and sink where wanted
};

}  // namespace

KernelPlan PlanBackward(const regard::Problem& p, const DeviceCaps& caps) {
  RequireIndexable(p, 1);
  auto own = std::make_shared<BackwardPlan>();
  KernelPlan plan;
  plan.workspace_bytes = static_cast<std::size_t>(p.batch * p.heads_q * p.seq_q) * sizeof(float);
  plan.shape.rows_per_tile = 1;
  plan.shape.rows_per_task = kRowsABlock;
  plan.shape.kv_block_tokens = 1;
  plan.shape.kv_split_tokens = p.seq_kv;
  plan.shape.max_tasks =
      (p.batch * std::max(p.heads_q * p.seq_q, p.heads_kv * p.seq_kv) + kRowsABlock - 1) / kRowsABlock;
  plan.shape.threads = kRowThreads;
  for (const NeededInstance& needed : InstancesOf(Generation::kGeneric, p, *caps.gpu)) {
    plan.shape.instances.push_back(needed.instance.name);
    if (caps.gpu->index) own->part[static_cast<int>(needed.part)] = GetFunction(*caps.gpu->index, needed.instance);
  }
  own->device = caps.gpu->index.value_or(0);
  if (caps.gpu->index) DeviceErrorFlag::Of(own->device);  // takes its memory now: a launch may be captured into a graph
  plan.own = std::move(own);
  return plan;
}

void LaunchBackward(const LaunchContext& ctx) {
  const auto& plan = *static_cast<const BackwardPlan*>(ctx.plan.own.get());
  BackwardParams f = BackwardParamsOf(ctx, DeviceErrorFlag::Of(plan.device).device_pointer(),
                                      reinterpret_cast<float*>(ctx.workspace.data()));
  const auto launch = [&](BackwardPart part, std::int64_t rows) {
    const CudaFunction& function = plan.part[static_cast<int>(part)];
    LaunchKernel(function, RowGrid(std::max<std::int64_t>(rows, 1)), {static_cast<unsigned>(function.threads), 1, 1},
                 function.shared_bytes, static_cast<abi::CUstream>(ctx.stream.handle), &f, sizeof f);
  };
  const Shape& s = f.shape;
  const std::int64_t rows = std::int64_t{s.batch} * s.seq_q * s.heads_q;
  launch(BackwardPart::kDelta, rows);
  launch(BackwardPart::kQuery, rows);
  launch(BackwardPart::kKey, std::int64_t{s.batch} * s.seq_kv * s.heads_kv);
  if (f.dbias.data != nullptr) {
    const i32* extent = f.dbias.extent;
    launch(BackwardPart::kBias, std::int64_t{extent[0]} * extent[1] * extent[2] * extent[3]);
  }
  if (f.dsink != nullptr) launch(BackwardPart::kSink, s.heads_q);
}

}  // namespace regard::cuda
