// The bytes that a view may touch, worked out without trusting it.
#pragma once

#include <cstdint>
#include <optional>

#include "regard/tensor.h"

namespace regard {

// [begin, end) as addresses; empty where the view has no element.
struct ByteSpan {
  std::uintptr_t begin = 0, end = 0;
};

// nullopt for a view that describes no memory: a rank, an extent or a stride out of range.
inline std::optional<ByteSpan> SpanOf(const TensorView& v) noexcept {
  if (v.rank < 0 || v.rank > TensorView::kMaxRank) return std::nullopt;
  std::int64_t low = 0, high = 1;  // elements
  for (int d = 0; d < v.rank; ++d) {
    const std::int64_t extent = v.shape[static_cast<std::size_t>(d)];
    if (extent < 0) return std::nullopt;
    if (extent == 0) return ByteSpan{};
    std::int64_t reach = 0;
    if (__builtin_mul_overflow(extent - 1, v.stride[static_cast<std::size_t>(d)], &reach)) return std::nullopt;
    std::int64_t& side = reach < 0 ? low : high;
    if (__builtin_add_overflow(side, reach, &side)) return std::nullopt;
  }
  const auto size = static_cast<std::int64_t>(SizeOf(v.dtype));
  if (__builtin_mul_overflow(low, size, &low) || __builtin_mul_overflow(high, size, &high)) return std::nullopt;
  ByteSpan span;
  const auto base = reinterpret_cast<std::uintptr_t>(v.data);
  if (__builtin_add_overflow(base, low, &span.begin) || __builtin_add_overflow(base, high, &span.end)) return std::nullopt;
  return span;
}

}  // namespace regard
