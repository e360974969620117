// 64-bit checksum of a view's elements in row-major order. The same elements give the same sum in any memory layout.
#include <bit>
#include <cstring>

#include "src/cases/cases.h"

namespace regard::cases {
namespace {

// Bytes gathered into 64-bit words; each word enters by multiply and rotate, four lanes in turn.
class Hasher {
 public:
  void Add(const std::byte* bytes, std::size_t n) noexcept {
    while (n > 0) {
      if (pending_bytes_ == 0 && n >= sizeof(std::uint64_t)) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes, sizeof(word));
        AddWord(word);
        bytes += sizeof(word);
        n -= sizeof(word);
        continue;
      }
      pending_ |= static_cast<std::uint64_t>(*bytes++) << (8 * pending_bytes_++);
      --n;
      if (pending_bytes_ == sizeof(std::uint64_t)) {
        AddWord(pending_);
        pending_ = 0;
        pending_bytes_ = 0;
      }
    }
  }

  std::uint64_t Finish() noexcept {
    const std::uint64_t length = words_ * sizeof(std::uint64_t) + static_cast<std::uint64_t>(pending_bytes_);
    AddWord(pending_);
    AddWord(length);
    std::uint64_t hash = 0;
    for (const std::uint64_t lane : lanes_) hash = Scramble(hash ^ lane);
    return hash;
  }

 private:
  static std::uint64_t Scramble(std::uint64_t x) noexcept {
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
  }
  void AddWord(std::uint64_t word) noexcept {
    std::uint64_t& lane = lanes_[words_++ % 4];
    lane = std::rotl(lane ^ (word * 0x9e3779b97f4a7c15u), 29) * 0xc2b2ae3d27d4eb4fu;
  }

  std::uint64_t lanes_[4] = {1, 2, 3, 4};
  std::uint64_t words_ = 0, pending_ = 0;
  int pending_bytes_ = 0;
};

void AddDim(Hasher& hasher, const TensorView& view, const std::byte* at, int dim) noexcept {
  const auto size = static_cast<std::int64_t>(SizeOf(view.dtype));
  if (dim == view.rank) return hasher.Add(at, static_cast<std::size_t>(size));
  if (dim == view.rank - 1 && view.stride[dim] == 1) {
    return hasher.Add(at, static_cast<std::size_t>(size * view.shape[dim]));
  }
  for (std::int64_t i = 0; i < view.shape[dim]; ++i) AddDim(hasher, view, at + i * view.stride[dim] * size, dim + 1);
}

}  // namespace

std::uint64_t Checksum(const TensorView& view) {
  Hasher hasher;
  if (view.Elements() > 0) AddDim(hasher, view, static_cast<const std::byte*>(view.data), 0);
  return hasher.Finish();
}

}  // namespace regard::cases
