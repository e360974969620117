// Who am I, and waiting for others. Warps are 32 lanes of consecutive threads; blocks are one-dimensional.
#pragma once

#include "base/types.h"

namespace regard::cuda {

REGARD_DEVICE int ThreadIndex() { return static_cast<int>(threadIdx.x); }
REGARD_DEVICE int Lane() { return static_cast<int>(threadIdx.x & 31); }
REGARD_DEVICE int Warp() { return static_cast<int>(threadIdx.x >> 5); }
REGARD_DEVICE int BlockX() { return static_cast<int>(blockIdx.x); }
REGARD_DEVICE int BlockY() { return static_cast<int>(blockIdx.y); }
REGARD_DEVICE int BlockZ() { return static_cast<int>(blockIdx.z); }
REGARD_DEVICE int GridX() { return static_cast<int>(gridDim.x); }

// bar.sync 0: every thread of the block; orders shared and global memory among them.
REGARD_DEVICE void BlockBarrier() { __syncthreads(); }
// The same, and whether `x` holds in any thread.
REGARD_DEVICE bool BlockAny(bool x) { return __syncthreads_or(x) != 0; }
// bar.warp.sync: every lane of the warp; orders shared memory among them.
REGARD_DEVICE void WarpBarrier() { __syncwarp(); }

}  // namespace regard::cuda
