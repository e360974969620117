// From a call's tensors to the plain structs that kernels take (src/cuda/kernels/base/params.h). Reads views only.
#pragma once

#include "src/backend/kernel_info.h"
#include "src/cuda/driver/functions.h"
#include "src/cuda/kernels/base/config.h"
#include "src/cuda/kernels/base/params.h"

namespace regard::cuda {

// q, out, qv: dense (B, S, H, D) or packed (T, H, D).
Rows RowsOf(const TensorView& view, bool packed);
Map MapOf(const TensorView& view);
// `bounds` is the plan's problem; `error` the device's sticky word.
Shape ShapeOf(const regard::Problem& bounds, const AttentionArgs& args, unsigned* error);
Cache CacheOf(const regard::Problem& bounds, const AttentionArgs& args);
Options OptionsOf(const regard::Problem& bounds, const AttentionArgs& args);
// All but row_tiles, splits and states.
ForwardParams ForwardParamsOf(const LaunchContext& ctx, unsigned* error);
// `q_out`: where rotated queries go, dense rows; null without rotary.
AppendParams AppendParamsOf(const LaunchContext& ctx, unsigned* error, void* q_out);

// Kernels count sequences, rows and blocks in 32 bits, with up to `pieces` blocks a row. Throws Error.
void RequireIndexable(const regard::Problem& p, std::int64_t pieces);

// Grids of one dimension; `rows` by a kernel that gives each a warp.
inline Dim3 GridOf(std::int64_t blocks) {
  return {static_cast<unsigned>(blocks), 1, 1};
}
inline Dim3 RowGrid(std::int64_t rows) {
  return GridOf((rows + kRowsABlock - 1) / kRowsABlock);
}

// For the backward pass; delta is the workspace.
BackwardParams BackwardParamsOf(const LaunchContext& ctx, unsigned* error, float* delta);

// Bounds of the longest sequence of this call, from shapes: no more than the plan's.
std::int64_t LongestQueries(const regard::Problem& bounds, const AttentionArgs& args);
std::int64_t LongestKeys(const regard::Problem& bounds, const AttentionArgs& args);

}  // namespace regard::cuda
