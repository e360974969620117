// Append to a KV cache and rotate q: what happens before attention in WithKvCache. Plain loops over resolved arguments.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/backend/kernel_info.h"

namespace regard::cpu {

// Bytes of the rotated copy of q that a launch within these bounds needs (0 without rotary).
std::size_t RotatedQueryBytes(const Problem& bounds);

// Writes k_new and v_new into the cache: rotated in f32 (x1 cos - x2 sin, x1 sin + x2 cos, products rounded one by one),
// divided by the descale of an fp8 cache, rounded once. Slots are distinct (checked), so tokens run in parallel.
void AppendKv(const LaunchContext& ctx);

// Rotates q into `to`, packed as rows of (heads_q, head_dim) in q's type; row numbering as in q's own view
// (b * Sq + i, or the packed row).
void RotateQueries(const LaunchContext& ctx, char* to);

}  // namespace regard::cpu
