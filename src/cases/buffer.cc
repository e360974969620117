// Small buffers come from the heap at their exact size, so that a sanitizer sees a read past their end; large ones begin
// on a huge-page boundary inside their own map.
#include "src/cases/buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

namespace regard::cases {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

Buffer::Buffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes < 2 * kHugePage) {
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, bytes > 0 ? bytes : 1) != 0) throw std::bad_alloc();
    data_ = static_cast<std::byte*>(memory);
    return;
  }
  if (bytes > SIZE_MAX - kHugePage) throw std::bad_alloc();
  map_bytes_ = bytes + kHugePage;
  void* map = mmap(nullptr, map_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) throw std::bad_alloc();
  map_ = map;
  const auto begin = (reinterpret_cast<std::uintptr_t>(map) + kHugePage - 1) / kHugePage * kHugePage;
  data_ = reinterpret_cast<std::byte*>(begin);
  madvise(data_, bytes, MADV_HUGEPAGE);  // a wish: without huge pages everything still works
}

Buffer::~Buffer() {
  if (map_) {
    munmap(map_, map_bytes_);
  } else {
    std::free(data_);
  }
}

Buffer::Buffer(Buffer&& other) noexcept { *this = std::move(other); }

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(map_, other.map_);
  std::swap(map_bytes_, other.map_bytes_);
  return *this;
}

}  // namespace regard::cases
