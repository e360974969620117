// An array of the emulated device, for tests: an allocation of its own, so that an access past its end is found.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "tests/emulator/device_memory.h"

namespace regard::emulator {

// Owns its device memory.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t n, std::string name = "array")
      : n_(n), address_(DeviceMemory::Get().Allocate(n * sizeof(T), std::move(name))) {}
  explicit DeviceArray(std::span<const T> values, std::string name = "array")
      : DeviceArray(values.size(), std::move(name)) {
    if (n_ > 0) std::memcpy(Host(), values.data(), n_ * sizeof(T));
  }
  explicit DeviceArray(const std::vector<T>& values, std::string name = "array")
      : DeviceArray(std::span<const T>(values), std::move(name)) {}
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { Release(); }

  T* address() const { return reinterpret_cast<T*>(address_); }  // for kernels; the host faults on it
  std::vector<T> Values() const {
    std::vector<T> values(n_);
    if (n_ > 0) std::memcpy(values.data(), Host(), n_ * sizeof(T));
    return values;
  }
  void Release() { DeviceMemory::Get().Release(address_); }

 private:
  std::byte* Host() const { return DeviceMemory::Get().Find(address_, n_ * sizeof(T)); }

  std::size_t n_ = 0;
  std::uint64_t address_ = 0;
};

}  // namespace regard::emulator
