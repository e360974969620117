// The K and V memory that a case really reads, as contiguous pieces: what the read roofs run over, and what GB/s
// counts.
#pragma once

#include <cstdint>
#include <vector>

#include "regard/attention.h"
#include "src/cpu/probe/probe.h"
#include "src/problem/sequence.h"

namespace regard::cli {

// Visible keys of every sequence in the order in which decode walks them: for each block of `block_tokens` keys its K,
// then its V; page by page. Every visible byte once. The pieces point into args.
std::vector<probe::Chunk> ChunksInOrder(const Problem& p, const AttentionArgs& args,
                                        const std::vector<Sequence>& sequences, std::int64_t block_tokens);

// The same bytes by address, neighbours joined.
std::vector<probe::Chunk> JoinedByAddress(std::vector<probe::Chunk> chunks);

double TotalBytes(const std::vector<probe::Chunk>& chunks);

}  // namespace regard::cli
