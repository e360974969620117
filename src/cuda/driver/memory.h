// Device memory, streams and events for the parts of regard that own some: the command's checks and benchmarks, and
// workspaces of one-call functions. Kernels' launches take pointers and streams of the caller and use none of this.
// Everything throws Error{"cuda"}; destructors give back and stay silent. Addresses are those of cuMemAlloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "src/cuda/driver/cuda_abi.h"

namespace regard::cuda {

using DevicePointer = abi::CUdeviceptr;
using Stream = abi::CUstream;  // null: the context's default stream

// Owns bytes on a device. Empty for 0 bytes: a null address.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(int device, std::size_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept { Swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    Swap(other);
    return *this;
  }

  DevicePointer address() const noexcept { return address_; }
  void* data() const noexcept { return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address_)); }
  std::size_t bytes() const noexcept { return bytes_; }
  int device() const noexcept { return device_; }

  // Whole transfers between `offset` and `offset + bytes`; they return when the host's memory may be reused or read.
  // Throws Error{"bytes"} where that is not inside the buffer.
  void CopyFromHost(const void* from, std::size_t bytes, std::size_t offset = 0);
  void CopyToHost(void* to, std::size_t bytes, std::size_t offset = 0) const;
  // Every byte of the buffer, in order on a stream.
  void Fill(unsigned char value, Stream stream = nullptr);

 private:
  void Swap(DeviceBuffer& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(address_, other.address_);
    std::swap(bytes_, other.bytes_);
  }
  void CheckInside(std::size_t offset, std::size_t bytes) const;

  int device_ = 0;
  DevicePointer address_ = 0;
  std::size_t bytes_ = 0;
};

// `bytes` from one place on the device to another, in order on a stream of the context of `device`.
void CopyOnDevice(int device, DevicePointer to, DevicePointer from, std::size_t bytes, Stream stream);

// A stream of one's own, which does not wait for the default stream.
class OwnedStream {
 public:
  explicit OwnedStream(int device);
  ~OwnedStream();
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  Stream get() const noexcept { return stream_; }
  void Synchronize() const;

 private:
  int device_;
  Stream stream_ = nullptr;
};

// Waits for a stream of the caller's.
void Synchronize(int device, Stream stream);

// Time between two points of a stream.
class EventTimer {
 public:
  explicit EventTimer(int device);
  ~EventTimer();
  EventTimer(const EventTimer&) = delete;
  EventTimer& operator=(const EventTimer&) = delete;
  void Begin(Stream stream);
  void End(Stream stream);
  double Seconds() const;  // waits for the end

 private:
  int device_;
  abi::CUevent begin_ = nullptr, end_ = nullptr;
};

struct DeviceMemory {
  std::size_t free_bytes = 0, total_bytes = 0;
};
DeviceMemory MemoryOf(int device);

// The device that an address belongs to; -1 for host memory and addresses that the driver does not know.
int DeviceOfAddress(const void* address) noexcept;

}  // namespace regard::cuda
