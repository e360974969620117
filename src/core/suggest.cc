// Edit distance search behind the "did you mean" part of error messages.

#include "src/core/suggest.h"

#include <algorithm>
#include <vector>

namespace regard {
namespace {

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// Optimal string alignment distance, three rows of the table kept at a time.
std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const char ca = Lower(a[i - 1]);
      const char cb = Lower(b[j - 1]);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (ca == cb ? 0u : 1u)});
      const bool swapped = i > 1 && j > 1 && ca == Lower(b[j - 2]) && cb == Lower(a[i - 2]);
      if (swapped) current[j] = std::min(current[j], before[j - 2] + 1);
    }
    std::swap(before, previous);
    std::swap(previous, current);
  }
  return previous[b.size()];
}

}  // namespace

std::string Nearest(std::string_view word, std::span<const std::string_view> known) {
  // Guards the quadratic search against a pasted paragraph; no known word is this long.
  constexpr std::size_t kLongestWord = 256;
  if (word.empty() || word.size() > kLongestWord) return "";
  std::string_view best;
  std::size_t best_distance = kLongestWord;
  for (const std::string_view candidate : known) {
    const std::size_t distance = EditDistance(word, candidate);
    const std::size_t longest = std::max(word.size(), candidate.size());
    const bool near = distance <= std::max<std::size_t>(1, longest / 3) && distance < longest;
    if (near && distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return std::string(best);
}

}  // namespace regard
