// What the host checks of a call whose tensors are on a GPU: everything but the numbers in its tables, which the
// kernels check (src/cuda/kernels/tile/sequence.h).
#pragma once

#include "regard/attention.h"
#include "regard/plan.h"

namespace regard::cuda {

// Throws Error for views that do not fit the plan or each other, and Error{"cuda.tables"} for what an earlier launch on
// the device met. `backward` is null for a forward pass.
void CheckCall(const Problem& bounds, const AttentionArgs& args, const BackwardArgs* backward, Device device);

// Waits for the stream, then throws Error{"cuda.tables"} for what launches on the device have met.
void CheckTables(int device, regard::Stream stream);

}  // namespace regard::cuda
