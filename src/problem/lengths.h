// Length lists of generated cases: text form, and the lengths of a problem's sequences.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "regard/problem.h"

namespace regard {

// Lists are for generated cases; a longer one is a mistake, and is refused before memory is taken for it.
inline constexpr std::int64_t kMaxListedSequences = std::int64_t{1} << 24;

// "1024*2,4096*30" or "uniform(17,8000)".
LengthSpec ReadLengths(std::string_view field, std::string_view text);
std::string WriteLengths(const LengthSpec& spec);
// The number of lengths that the runs name, saturated at the largest 64-bit number; 0 for uniform.
std::int64_t CountOf(const LengthSpec& spec) noexcept;

// The lengths of the `p.batch` sequences: those of qlens (lens), or all seq_q (seq_kv).
std::vector<std::int64_t> QueryLengths(const Problem& p);
std::vector<std::int64_t> KeyLengths(const Problem& p);

}  // namespace regard
