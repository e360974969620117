// TensorView: a strided view of memory that somebody else owns.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "regard/dtype.h"
#include "regard/export.h"

namespace regard {

enum class DeviceType : std::uint8_t { kCpu, kCuda, kOpenCl };

struct Device {
  DeviceType type = DeviceType::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

// Shapes and strides are counted in elements; strides are 64-bit and may be 0 (broadcast) or negative.
struct REGARD_API TensorView {
  static constexpr int kMaxRank = 5;

  void* data = nullptr;  // address of element (0, ..., 0)
  DType dtype = DType::kF32;
  Device device;
  int rank = 0;
  std::array<std::int64_t, kMaxRank> shape{};
  std::array<std::int64_t, kMaxRank> stride{};

  // Row-major view; throws Error{"rank"} above kMaxRank and Error{"shape"} for a negative extent.
  static TensorView Contiguous(void* data, DType dtype, std::initializer_list<std::int64_t> shape);

  std::int64_t Elements() const noexcept;  // product of shape
  bool IsContiguous() const noexcept;      // row-major without gaps
  // Address of the element at the given indices (as many as rank).
  template <class T = void, class... I>
  T* At(I... index) const noexcept {
    std::int64_t offset = 0;
    int d = 0;
    ((offset += static_cast<std::int64_t>(index) * stride[d++]), ...);
    return reinterpret_cast<T*>(static_cast<char*>(data) + offset * static_cast<std::int64_t>(SizeOf(dtype)));
  }
  // "bf16 (1, 4096, 8, 128)".
  std::string Describe() const;
};

}  // namespace regard
