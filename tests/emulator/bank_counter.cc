#include "tests/emulator/bank_counter.h"

#include <algorithm>
#include <array>

namespace regard::emulator {
namespace {

// Passes of one phase: the largest number of distinct words in a bank.
int Passes(const std::uint32_t* offsets, int n, std::uint32_t bytes) {
  std::array<std::vector<std::uint32_t>, 32> banks;
  for (int i = 0; i < n; ++i) {
    for (std::uint32_t word = offsets[i] / 4; word <= (offsets[i] + bytes - 1) / 4; ++word) {
      auto& words = banks[word % 32];
      if (std::find(words.begin(), words.end(), word) == words.end()) words.push_back(word);
    }
  }
  std::size_t most = 1;
  for (const auto& words : banks) most = std::max(most, words.size());
  return static_cast<int>(most);
}

}  // namespace

void BankCounter::Reset(int threads) {
  logs_.assign(static_cast<std::size_t>(threads), {});
  counts_.clear();
}

void BankCounter::Count(const Site& site, const Access* const* accesses, int n) {
  // Lanes of a phase: 32, 16 or 8, by their position among those that take part.
  const std::uint32_t bytes = accesses[0]->bytes;
  const int phase = bytes >= 16 ? 8 : bytes == 8 ? 16 : 32;
  BankCount count;
  count.instructions = 1;
  for (int begin = 0; begin < n; begin += phase) {
    std::uint32_t offsets[32];
    const int lanes = std::min(phase, n - begin);
    for (int i = 0; i < lanes; ++i) offsets[i] = accesses[begin + i]->offset;
    count.passes += Passes(offsets, lanes, bytes);
    ++count.ideal;
  }
  counts_[Print(site)].Add(count);
}

void BankCounter::CountMatrices(const Site& site, const std::uint32_t* offsets, int rows) {
  BankCount count;
  count.instructions = 1;
  for (int begin = 0; begin < rows; begin += 8) {
    count.passes += Passes(offsets + begin, 8, 16);
    ++count.ideal;
  }
  counts_[Print(site)].Add(count);
}

void BankCounter::Meet(int warp) {
  const std::size_t first = static_cast<std::size_t>(warp) * 32;
  std::array<std::size_t, 32> next{};
  while (true) {
    // The lanes whose next access is at the earliest line go together: a branch or a loop is left before what follows.
    const Access* leader = nullptr;
    for (std::size_t lane = 0; lane < 32; ++lane) {
      const auto& log = logs_[first + lane];
      if (next[lane] == log.size()) continue;
      const Access& access = log[next[lane]];
      if (!leader || access.site.line < leader->site.line) leader = &access;
    }
    if (!leader) break;
    const Access* together[32];
    int n = 0;
    for (std::size_t lane = 0; lane < 32; ++lane) {
      const auto& log = logs_[first + lane];
      if (next[lane] == log.size()) continue;
      const Access& access = log[next[lane]];
      if (access.bytes != leader->bytes || !SameSite(access.site, leader->site)) continue;
      together[n++] = &access;
      ++next[lane];
    }
    Count(leader->site, together, n);
  }
  for (std::size_t lane = 0; lane < 32; ++lane) logs_[first + lane].clear();
}

}  // namespace regard::emulator
