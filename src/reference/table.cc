// The reference as a kernel: one row, able to do every problem, forward and backward, far slower than any other. Its
// launch computes in f64 and rounds once into out and lse, or into the gradients. Unlike a fast kernel's, it allocates.
#include <bit>
#include <cmath>
#include <cstddef>
#include <vector>

#include "src/backend/kernel_info.h"
#include "src/core/fp_mode.h"
#include "src/problem/extent.h"
#include "src/reference/reference.h"

namespace regard {
namespace {

Verdict ReferenceSupports(const KernelInfo&, const Problem&, const DeviceCaps& caps) {
  return caps.gpu ? RejectGpu() : Accept();
}

Cost ReferenceCost(const KernelInfo&, const Problem& p, const DeviceCaps&) {
  constexpr double kFlopsPerSecond = 1e9;  // scalar f64 loops with conversions, one core
  const double d = static_cast<double>(p.head_dim), dv = static_cast<double>(p.head_dim_v);
  const double q_rows = static_cast<double>(p.batch) * static_cast<double>(p.seq_q * p.heads_q);
  const double kv_rows = static_cast<double>(p.batch) * static_cast<double>(p.seq_kv * p.heads_kv);
  const double q_width = (d + (p.qv ? dv : 0)) * static_cast<double>(SizeOf(p.dtype));
  const bool backward = p.phase == Phase::kBackward;
  const double width = backward ? 3 * d + 2 * dv : d + dv + (p.qv ? dv : 0);
  Cost cost;
  cost.flops = 2 * VisiblePairs(p) * static_cast<double>(p.heads_q) * width;
  cost.bytes = q_rows * (q_width + dv * static_cast<double>(SizeOf(p.OutType()))) +
               kv_rows * (d + dv) * static_cast<double>(SizeOf(p.kv_dtype));
  if (backward) {
    const auto grad_size = static_cast<double>(SizeOf(p.GradType()));
    cost.bytes += q_rows * dv * static_cast<double>(SizeOf(p.dtype)) + (q_rows * d + kv_rows * (d + dv)) * grad_size;
  }
  cost.seconds = cost.flops / kFlopsPerSecond + 1e-4;
  return cost;
}

KernelPlan ReferencePlan(const KernelInfo&, const Problem& p, const DeviceCaps&, int threads) {
  KernelPlan plan;
  plan.shape.rows_per_tile = 1;
  plan.shape.rows_per_task = 1;
  plan.shape.kv_block_tokens = p.seq_kv;
  plan.shape.kv_split_tokens = p.seq_kv;
  plan.shape.max_tasks = p.batch * (p.seq_q * p.heads_q + (p.phase == Phase::kBackward ? p.seq_kv * p.heads_kv : 0));
  plan.shape.threads = threads;
  return plan;
}

// f64 to f32 so that a second rounding, to 16 bits, ends where a single one would: an inexact value keeps its truncated
// bits with the last one set (round to odd).
float RoundToOdd(double x) {
  const float nearest = static_cast<float>(x);
  if (!std::isfinite(nearest) || static_cast<double>(nearest) == x) return nearest;
  const float truncated =
      std::abs(static_cast<double>(nearest)) > std::abs(x) ? std::nextafter(nearest, 0.0f) : nearest;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(truncated) | 1u);
}

void StoreRow(const TensorView& t, void* row, const double* x, std::int64_t n) {
  for (std::int64_t c = 0; c < n; ++c) {
    StoreFloat(row, t.dtype, c, t.dtype == DType::kF32 ? static_cast<float>(x[c]) : RoundToOdd(x[c]));
  }
}

// Row-major x into a view of any strides but the last.
void StoreAll(const TensorView& t, const std::vector<double>& x) {
  const std::int64_t width = t.shape[t.rank - 1];
  for (std::int64_t row = 0; width > 0 && row < t.Elements() / width; ++row) {
    std::int64_t offset = 0, rest = row;
    for (int d = t.rank - 2; d >= 0; --d) {
      offset += rest % t.shape[d] * t.stride[d];
      rest /= t.shape[d];
    }
    StoreRow(t, static_cast<std::byte*>(t.data) + offset * static_cast<std::int64_t>(SizeOf(t.dtype)), &x[row * width], width);
  }
}

void ReferenceLaunchBackward(const LaunchContext& context) {
  const std::vector<Sequence> sequences(context.sequences.begin(), context.sequences.end());
  const BackwardArgs& args = *context.backward;
  const reference::Gradients gradients =
      reference::Backward(context.problem, args, sequences, reference::StoredForward(args.forward));
  StoreAll(args.dq, gradients.dq);
  StoreAll(args.dk, gradients.dk);
  StoreAll(args.dv, gradients.dv);
  if (args.dbias) StoreAll(*args.dbias, gradients.dbias);
  if (args.dsink) StoreAll(*args.dsink, gradients.dsink);
}

void ReferenceLaunch(const LaunchContext& context) {
  const FpModeGuard mode;
  if (context.backward) return ReferenceLaunchBackward(context);
  const Problem& p = context.problem;
  const AttentionArgs& args = context.args;
  const std::vector<Sequence> sequences(context.sequences.begin(), context.sequences.end());
  reference::AppendKv(p, args, sequences);
  const reference::Result result = reference::Forward(p, args, sequences);

  const bool packed = args.q.rank == 3;
  const std::int64_t batch = packed ? 1 : args.q.shape[0];
  const std::int64_t rows = args.q.shape[packed ? 0 : 1];
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t h = 0; h < p.heads_q; ++h) {
        void* row = packed ? args.out.At(i, h) : args.out.At(b, i, h);
        StoreRow(args.out, row, &result.out[((b * rows + i) * p.heads_q + h) * p.head_dim_v], p.head_dim_v);
        if (!args.lse) continue;
        void* slot = packed ? args.lse->At(h, i) : args.lse->At(b, h, i);
        StoreRow(*args.lse, slot, &result.lse[(b * p.heads_q + h) * rows + i], 1);
      }
    }
  }
}

constexpr KernelInfo kReferenceKernels[] = {
    {"reference", "f64", ReferenceSupports, ReferenceCost, ReferencePlan, ReferenceLaunch,
     "f64 loops that read like the semantics; every option, very slow"},
};

}  // namespace

std::span<const KernelInfo> ReferenceKernels() {
  return kReferenceKernels;
}

}  // namespace regard
