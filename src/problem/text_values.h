// Values of the problem's text form: numbers and names, both ways. Numbers read here print back to the same value.
// Owns nothing; the views passed in are not kept. Every reader throws Error naming `field` and the text it got.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "regard/dtype.h"
#include "regard/status.h"

namespace regard {

// `text` made safe for one line of a message: cut at 60 bytes, unprintable bytes shown as '?'.
std::string Shown(std::string_view text);

std::int64_t ReadInt(std::string_view field, std::string_view text);
std::uint64_t ReadUint(std::string_view field, std::string_view text);
// Decimal, or "inf"; nan is refused, because it would not compare equal to itself after a round trip.
double ReadDouble(std::string_view field, std::string_view text);
DType ReadDType(std::string_view field, std::string_view text);
// The index of `text` in `names`.
std::size_t ReadName(std::string_view field, std::string_view text, std::span<const std::string_view> names);

// The shortest text that reads back as exactly `x`.
std::string WriteDouble(double x);
// names[index], or "?" for an index that names nothing.
std::string WriteName(std::size_t index, std::span<const std::string_view> names);

}  // namespace regard
