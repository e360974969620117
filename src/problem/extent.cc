// Visible key ranges (extent.h): step 5 of docs/semantics.md as intervals. With p = i + q_offset, o = leftpad:
//   j in [o, seq_kv), j <= p (causal), p - L <= j <= p + R, and o + floor((p-o)/C)*C <= j < that + C.
// Positions saturate at the ends of 64 bits, where no key is.
#include "src/problem/extent.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <vector>

#include "src/problem/lengths.h"

namespace regard {
namespace {

using Limits = std::numeric_limits<std::int64_t>;

std::int64_t Add(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t sum = 0;
  if (!__builtin_add_overflow(a, b, &sum)) return sum;
  return b > 0 ? Limits::max() : Limits::min();
}

std::int64_t Subtract(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t difference = 0;
  if (!__builtin_sub_overflow(a, b, &difference)) return difference;
  return b < 0 ? Limits::max() : Limits::min();
}

// floor(x / c) * c for c >= 1, true floor for negative x.
std::int64_t FloorToMultiple(std::int64_t x, std::int64_t c) noexcept {
  const std::int64_t rest = x % c;
  return Subtract(x, rest < 0 ? rest + c : rest);
}

// Keys to the right of p that stay visible; causal is a right side of 0.
std::optional<std::int64_t> RightSide(const AttentionOptions& o) noexcept {
  if (o.causal) return 0;
  return o.window_right;
}

// The part of `keys` that lies in the window of position p. Both ends stay inside `keys`.
KeyRange Window(const AttentionOptions& o, std::int64_t p, KeyRange keys) noexcept {
  const std::optional<std::int64_t> right = RightSide(o);
  KeyRange range = keys;
  if (o.window_left) range.begin = std::clamp(Subtract(p, *o.window_left), keys.begin, keys.end);
  if (right) range.end = std::clamp(Add(Add(p, *right), 1), keys.begin, keys.end);
  return range;
}

// Keys of a sequence that are there at all; begin <= end.
KeyRange RealKeys(const Sequence& s) noexcept {
  const std::int64_t end = std::max<std::int64_t>(s.seq_kv, 0);
  return {std::clamp<std::int64_t>(s.leftpad, 0, end), end};
}

// Pairs of positions [first, last] with keys [begin, end) under the window. The width of a row is linear in p between
// the positions where a side of the window meets an end of `keys`, so each piece is an arithmetic series.
double PairsInBand(const AttentionOptions& o, std::int64_t first, std::int64_t last, KeyRange keys) noexcept {
  if (first > last || keys.empty()) return 0;
  const auto width = [&](std::int64_t p) {
    const KeyRange range = Window(o, p, keys);
    return range.empty() ? 0.0 : static_cast<double>(range.end - range.begin);
  };
  const std::int64_t left = o.window_left.value_or(0);
  const std::int64_t right = Add(RightSide(o).value_or(0), 1);
  std::array<std::int64_t, 6> cuts = {first, Add(keys.begin, left), Add(keys.end, left), Subtract(keys.begin, right),
                                      Subtract(keys.end, right), Add(last, 1)};
  for (std::int64_t& cut : cuts) cut = std::clamp(cut, cuts.front(), Add(last, 1));
  std::sort(cuts.begin(), cuts.end());
  double pairs = 0;
  for (std::size_t c = 0; c + 1 < cuts.size(); ++c) {
    const std::int64_t begin = cuts[c], end = cuts[c + 1];
    if (begin < end) pairs += static_cast<double>(end - begin) * (width(begin) + width(end - 1)) / 2;
  }
  return pairs;
}

}  // namespace

KeyRange VisibleKeys(const AttentionOptions& o, const Sequence& s, std::int64_t i) noexcept {
  const std::int64_t p = Add(i, s.q_offset);
  const KeyRange real = RealKeys(s);
  KeyRange range = Window(o, p, real);
  if (o.chunk) {
    const std::int64_t chunk = FloorToMultiple(Subtract(p, s.leftpad), *o.chunk);
    const std::int64_t begin = Add(s.leftpad, chunk), end = Add(s.leftpad, Add(chunk, *o.chunk));
    range.begin = std::max(range.begin, std::clamp(begin, real.begin, real.end));
    range.end = std::min(range.end, std::clamp(end, real.begin, real.end));
  }
  return range;
}

double VisiblePairs(const AttentionOptions& o, const Sequence& s) noexcept {
  if (s.seq_q <= 0) return 0;
  const KeyRange real = RealKeys(s);
  const std::int64_t first = s.q_offset, last = Add(s.q_offset, s.seq_q - 1);
  if (!o.chunk) return PairsInBand(o, first, last, real);

  double pairs = 0;
  std::int64_t begin = std::max(s.leftpad, Add(s.leftpad, FloorToMultiple(Subtract(first, s.leftpad), *o.chunk)));
  while (begin <= last && begin < real.end) {
    const std::int64_t end = Add(begin, *o.chunk);
    pairs += PairsInBand(o, std::max(first, begin), std::min(last, end - 1), {begin, std::min(end, real.end)});
    begin = end;
  }
  return pairs;
}

double VisiblePairs(const Problem& p) {
  const auto pairs = [&](std::int64_t seq_q, std::int64_t seq_kv) {
    Sequence s;
    s.rows = s.seq_q = seq_q;
    s.seq_kv = seq_kv;
    s.q_offset = seq_kv - seq_q;
    return VisiblePairs(p.options, s);
  };
  if (p.lens.empty() && p.qlens.empty()) return static_cast<double>(p.batch) * pairs(p.seq_q, p.seq_kv);
  const std::vector<std::int64_t> queries = QueryLengths(p), keys = KeyLengths(p);
  double sum = 0;
  for (std::size_t b = 0; b < queries.size(); ++b) sum += pairs(queries[b], keys[b]);
  return sum;
}

}  // namespace regard
