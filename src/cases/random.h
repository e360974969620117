// Counter-based random numbers: a value is a pure function of its key, so that an element of a generated tensor depends
// on what it is (seed, tensor, sequence, head, position, channel) and never on layout, paging or threads.
#pragma once

#include <cstdint>

#include "regard/dtype.h"

namespace regard::cases {

// What a stream of numbers is for; keeps the tensors of one seed apart.
enum class Stream : std::uint64_t { kQ, kK, kV, kQv, kBias, kMask, kSink, kDescale, kLeftpad, kOffset, kPages, kGap, kSample, kDout, kDlse };

// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014: SplitMix64 at counter x.
inline std::uint64_t Mix(std::uint64_t x) noexcept {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Key of a row: (seed, stream, a, b, c), for example c = position in sequence a of head b.
inline std::uint64_t Key(std::uint64_t seed, Stream stream, std::int64_t a = 0, std::int64_t b = 0,
                         std::int64_t c = 0) noexcept {
  std::uint64_t key = Mix(seed ^ (static_cast<std::uint64_t>(stream) << 56));
  key = Mix(key ^ static_cast<std::uint64_t>(a));
  key = Mix(key ^ static_cast<std::uint64_t>(b));
  return Mix(key ^ static_cast<std::uint64_t>(c));
}

// Uniform in [0, 1), and a whole number in [lo, hi] (lo where hi < lo).
inline double Uniform(std::uint64_t key) noexcept { return static_cast<double>(Mix(key) >> 11) * 0x1p-53; }
inline std::int64_t UniformInt(std::uint64_t key, std::int64_t lo, std::int64_t hi) noexcept {
  if (hi < lo) return lo;
  const auto count = static_cast<unsigned __int128>(hi - lo) + 1;
  return lo + static_cast<std::int64_t>((count * Mix(key)) >> 64);
}

// n contiguous elements of type `dtype`, independent N(0, deviation^2), rounded once.
void FillNormal(void* data, DType dtype, std::int64_t n, double deviation, std::uint64_t key) noexcept;

}  // namespace regard::cases
