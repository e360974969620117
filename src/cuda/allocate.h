// Memory of a GPU that regard takes for its callers.
#pragma once

#include <cstddef>
#include <memory>

#include "regard/plan.h"

namespace regard::cuda {

// Given back, after the device has finished what uses it, with the last owner. Throws Error{"device"} where there is no
// such GPU, Error{"memory"} where it is full.
std::shared_ptr<void> Allocate(int device, std::size_t bytes);

// Bytes for work on one stream: taken and given back in its order (cuMemAllocAsync), so that destruction waits for
// nothing; where the driver or the device has no such pools, as Allocate does. Empty for 0 bytes. The stream outlives
// it.
class StreamBuffer {
 public:
  StreamBuffer(int device, std::size_t bytes, regard::Stream stream);
  ~StreamBuffer();
  StreamBuffer(const StreamBuffer&) = delete;
  StreamBuffer& operator=(const StreamBuffer&) = delete;
  void* data() const noexcept { return data_; }

 private:
  int device_;
  regard::Stream stream_;
  void* data_ = nullptr;
  std::shared_ptr<void> plain_;  // owns data_ where it is not of a pool
};

}  // namespace regard::cuda
