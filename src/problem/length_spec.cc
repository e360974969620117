// LengthSpec: expansion and text form. Draws of uniform(lo, hi) are splitmix64 over (seed, salt, index), so that the
// n-th length does not depend on the batch.
#include <algorithm>
#include <limits>

#include "src/problem/lengths.h"
#include "src/problem/text_values.h"

namespace regard {
namespace {

constexpr std::uint64_t kQuerySalt = 1, kKeySalt = 2;

// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014: the finaliser of SplitMix64.
std::uint64_t Mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// floor(random / 2^64 * count) + lo, where count = hi - lo + 1 (0 stands for 2^64).
std::int64_t Draw(std::uint64_t random, std::int64_t lo, std::int64_t hi) {
  const std::uint64_t count = static_cast<std::uint64_t>(hi) - static_cast<std::uint64_t>(lo) + 1;
  const std::uint64_t step =
      count == 0 ? random : static_cast<std::uint64_t>((static_cast<unsigned __int128>(random) * count) >> 64);
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(lo) + step);
}

}  // namespace

std::vector<std::int64_t> LengthSpec::Expand(std::int64_t batch, std::uint64_t seed, std::uint64_t salt) const {
  if (batch < 0 || batch > kMaxListedSequences) {
    throw Error("b", std::to_string(batch),
                "0 to " + std::to_string(kMaxListedSequences) + " where lengths are listed");
  }
  std::vector<std::int64_t> lengths;
  lengths.reserve(static_cast<std::size_t>(batch));
  if (uniform_lo) {
    const std::int64_t lo = *uniform_lo, hi = uniform_hi.value_or(*uniform_lo);
    if (lo > hi) throw Error("lens", WriteLengths(*this), "uniform(lo,hi) with lo <= hi");
    for (std::int64_t b = 0; b < batch; ++b) {
      lengths.push_back(Draw(Mix(Mix(Mix(seed) ^ salt) ^ static_cast<std::uint64_t>(b)), lo, hi));
    }
    return lengths;
  }
  for (const Run& run : runs) {
    if (run.count < 1) throw Error("lens", WriteLengths(*this), "a count of at least 1 after each *");
  }
  if (CountOf(*this) != batch) {
    throw Error("lens", WriteLengths(*this) + " (" + std::to_string(CountOf(*this)) + " lengths)",
                "as many lengths as b=" + std::to_string(batch));
  }
  for (const Run& run : runs) lengths.insert(lengths.end(), static_cast<std::size_t>(run.count), run.length);
  return lengths;
}

std::int64_t LengthSpec::Max() const noexcept {
  if (uniform_lo) return uniform_hi.value_or(*uniform_lo);
  std::int64_t longest = runs.empty() ? 0 : runs[0].length;
  for (const Run& run : runs) longest = std::max(longest, run.length);
  return longest;
}

std::int64_t LengthSpec::Min() const noexcept {
  if (uniform_lo) return *uniform_lo;
  std::int64_t shortest = runs.empty() ? 0 : runs[0].length;
  for (const Run& run : runs) shortest = std::min(shortest, run.length);
  return shortest;
}

LengthSpec ReadLengths(std::string_view field, std::string_view text) {
  constexpr std::string_view kUniform = "uniform(";
  LengthSpec spec;
  if (text.starts_with(kUniform)) {
    const std::size_t comma = text.find(',');
    if (comma == text.npos || !text.ends_with(')')) {
      throw Error(std::string(field), Shown(text), "uniform(lo,hi), for example uniform(17,8000)");
    }
    spec.uniform_lo = ReadInt(field, text.substr(kUniform.size(), comma - kUniform.size()));
    spec.uniform_hi = ReadInt(field, text.substr(comma + 1, text.size() - comma - 2));
    return spec;
  }
  while (true) {
    const std::size_t comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    const std::size_t star = item.find('*');
    LengthSpec::Run run;
    run.length = ReadInt(field, item.substr(0, star));
    if (star != item.npos) run.count = ReadInt(field, item.substr(star + 1));
    spec.runs.push_back(run);
    if (comma == text.npos) return spec;
    text.remove_prefix(comma + 1);
  }
}

std::string WriteLengths(const LengthSpec& spec) {
  if (spec.uniform_lo) {
    return "uniform(" + std::to_string(*spec.uniform_lo) + "," +
           std::to_string(spec.uniform_hi.value_or(*spec.uniform_lo)) + ")";
  }
  std::string text;
  for (const LengthSpec::Run& run : spec.runs) {
    if (!text.empty()) text += ",";
    text += std::to_string(run.length);
    if (run.count != 1) text += "*" + std::to_string(run.count);
  }
  return text;
}

std::int64_t CountOf(const LengthSpec& spec) noexcept {
  std::int64_t count = 0;
  for (const LengthSpec::Run& run : spec.runs) {
    if (run.count > 0 && __builtin_add_overflow(count, run.count, &count)) {
      return std::numeric_limits<std::int64_t>::max();
    }
  }
  return count;
}

std::vector<std::int64_t> QueryLengths(const Problem& p) {
  if (!p.qlens.empty()) return p.qlens.Expand(p.batch, p.seed, kQuerySalt);
  return LengthSpec{.runs = {}, .uniform_lo = p.seq_q, .uniform_hi = p.seq_q}.Expand(p.batch, 0, 0);
}

std::vector<std::int64_t> KeyLengths(const Problem& p) {
  if (!p.lens.empty()) return p.lens.Expand(p.batch, p.seed, kKeySalt);
  return LengthSpec{.runs = {}, .uniform_lo = p.seq_kv, .uniform_hi = p.seq_kv}.Expand(p.batch, 0, 0);
}

}  // namespace regard
