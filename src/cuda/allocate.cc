#include "src/cuda/allocate.h"

#include <cstdint>

#include "regard/device.h"
#include "src/cuda/driver/context.h"
#include "src/cuda/driver/driver_api.h"
#include "src/cuda/driver/memory.h"

namespace regard::cuda {
namespace {

void* PointerOf(DevicePointer address) {
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address));
}

}  // namespace

std::shared_ptr<void> Allocate(int device, std::size_t bytes) {
  static_cast<void>(DeviceCaps::Gpu(device));  // says what is missing
  auto buffer = std::make_shared<DeviceBuffer>(device, bytes);
  void* const data = buffer->data();
  return {std::move(buffer), data};
}

StreamBuffer::StreamBuffer(int device, std::size_t bytes, regard::Stream stream) : device_(device), stream_(stream) {
  if (bytes == 0) return;
  const DriverApi& api = NeedDriver();
  if (api.mem_alloc_async != nullptr && api.mem_free_async != nullptr) {
    const ContextScope scope(device);
    DevicePointer address = 0;
    if (api.mem_alloc_async(&address, bytes, static_cast<abi::CUstream>(stream.handle)) == abi::CUDA_SUCCESS) {
      data_ = PointerOf(address);
      return;
    }
  }
  plain_ = Allocate(device, bytes);
  data_ = plain_.get();
}

StreamBuffer::~StreamBuffer() {
  if (data_ == nullptr || plain_) return;
  try {
    const ContextScope scope(device_);
    Driver().mem_free_async(static_cast<DevicePointer>(reinterpret_cast<std::uintptr_t>(data_)),
                            static_cast<abi::CUstream>(stream_.handle));
  } catch (...) {  // the context is gone, and its memory with it
  }
}

}  // namespace regard::cuda
