// The sticky error word of a device: kernels set bits of it (ErrorBit of src/cuda/kernels/base/params.h) where a table
// or a length in device memory is bad, and skip what it names; the next call of the host reports it. One word a device
// in host memory that the device can write, allocated at the first use and kept for the life of the process.
#pragma once

#include <string>

#include "src/cuda/driver/memory.h"

namespace regard::cuda {

class DeviceErrorFlag {
 public:
  // Of a device, by the driver's index. Throws Error{"cuda"}.
  static DeviceErrorFlag& Of(int device);

  unsigned* device_pointer() const noexcept { return device_pointer_; }  // what goes into Shape::error
  // What was set so far by work that has finished; waits for nothing.
  unsigned Read() const noexcept;
  // The same, and clears it.
  unsigned Take() noexcept;
  // Clears it and throws Error{"cuda.tables"} if anything was set.
  void Check();

  explicit DeviceErrorFlag(int device);
  DeviceErrorFlag(const DeviceErrorFlag&) = delete;
  DeviceErrorFlag& operator=(const DeviceErrorFlag&) = delete;

 private:
  int device_;
  unsigned* host_ = nullptr;
  unsigned* device_pointer_ = nullptr;
};

// "block_table or kv_indices names a page that is not there; ..." for the bits that are set.
std::string DeviceErrorText(unsigned bits);

}  // namespace regard::cuda
