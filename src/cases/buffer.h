// Memory of generated cases and of files: 64-byte aligned; large buffers are anonymous maps on huge pages.
// Owns its bytes; movable, the address stays.
#pragma once

#include <cstddef>

namespace regard::cases {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes);  // contents undefined; throws std::bad_alloc
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  void* map_ = nullptr;         // the whole map where the buffer is one
  std::size_t map_bytes_ = 0;
};

}  // namespace regard::cases
