// MergeStates on a GPU.
#pragma once

#include "regard/plan.h"
#include "regard/tensor.h"

namespace regard::cuda {

// Of tensors on one GPU whose shapes, types and overlap MergeStates has checked.
void Merge(const TensorView& o_a, const TensorView& lse_a, const TensorView& o_b, const TensorView& lse_b,
           const TensorView& out, const TensorView& lse_out, regard::Stream stream);

}  // namespace regard::cuda
