// Where decode ends and prefill begins. Included by the ISA objects too: nothing here but a constant.
#pragma once

namespace regard {

// A sequence of at most so many queries is a decode step (docs/problem.md, "phase"). No bit depends on it.
inline constexpr int kMaxDecodeQueries = 15;

}  // namespace regard
