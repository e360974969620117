#include "tests/emulator/shared_shadow.h"

#include <algorithm>

namespace regard::emulator {

void SharedShadow::Reset(std::uint32_t bytes, int threads) {
  const std::size_t words = (bytes + 3) / 4;
  words_.assign(words, Cell{});
  if (bytes_.size() < words * 4) bytes_.resize(words * 4);
  warp_sync_.assign(static_cast<std::size_t>((threads + 31) / 32), 1);
  now_ = block_sync_ = 1;
}

void SharedShadow::BlockSync() {
  block_sync_ = ++now_;
  std::fill(warp_sync_.begin(), warp_sync_.end(), now_);
}

void SharedShadow::End(std::uint32_t offset) {
  const auto end_cell = [this](Cell& cell) {
    cell.flags = static_cast<std::uint8_t>((cell.flags & kByBytes) | kInitialised);
    cell.write_time = now_;
  };
  for (std::uint32_t w = offset / 4; w < offset / 4 + 4; ++w) {
    if (words_[w].flags & kByBytes) {
      for (std::uint32_t b = w * 4; b < w * 4 + 4; ++b) end_cell(bytes_[b]);
    } else {
      end_cell(words_[w]);
    }
  }
}

}  // namespace regard::emulator
