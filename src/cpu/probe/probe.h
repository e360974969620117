// Single-thread loops that reach the hardware's limits, one table per instruction set: what a kernel is held against.
// The loops are compiled with the flags of their instruction set (probe_<isa>.cc), as the kernels are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "regard/device.h"

namespace regard::probe {

// Contiguous bytes of somebody else's memory.
struct Chunk {
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
};

// Software prefetch of what a loop reads `lead_bytes` later; 0: none. Into L2 a core keeps more lines in flight.
struct Prefetch {
  std::size_t lead_bytes = 0;
  bool into_l2 = false;  // else into L1
};

// How a list of chunks is read, in its order. Alone (`group` 1): one after another, prefetching `prefetch.lead_bytes`
// ahead in that order. In groups of `group` chunks side by side: a line of each in turn, prefetching into L2 the chunks
// `groups_ahead` groups later (0: none), as `by_rows` says one after another, or else a line of each in turn as well.
struct ChunkWalk {
  int group = 1;
  Prefetch prefetch;
  int groups_ahead = 0;
  bool by_rows = false;
};

// Every read loop returns the XOR of all chunks' contents, taken as 8-byte words from each chunk's start, a short last
// word filled with zeros: proof that each byte was loaded exactly once.
struct ProbeTable {
  Isa isa;
  int lanes;  // f32 lanes of one register

  // Independent multiply-add chains in registers, `steps` times; returns the floating-point operations done (an FMA
  // is 2). Without an FMA instruction: as many multiplications as additions.
  double (*fma_f32)(std::int64_t steps);
  // The same for the dot product of bf16 pairs (4 operations a lane); null where the set has none.
  double (*dot_bf16)(std::int64_t steps);

  // Reads a chunk as `streams` (1, 2, 4, 8 or 16) parts side by side, prefetching in each.
  std::uint64_t (*read_streams)(Chunk chunk, int streams, Prefetch prefetch);
  std::uint64_t (*read_chunks)(const Chunk* chunks, std::size_t count, ChunkWalk walk);
};

// The loops of an instruction set; null where this build has none. Calling one on a CPU without the set crashes.
const ProbeTable* ProbesFor(Isa isa) noexcept;

// The tables, each in its own file.
const ProbeTable& ScalarProbes() noexcept;
const ProbeTable& NeonProbes() noexcept;
const ProbeTable& Avx2Probes() noexcept;
const ProbeTable& Avx512Probes() noexcept;
const ProbeTable& Avx512Bf16Probes() noexcept;

}  // namespace regard::probe
