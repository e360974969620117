#include "src/cuda/driver/memory.h"

#include <string>

#include "regard/status.h"
#include "src/cuda/driver/context.h"
#include "src/cuda/driver/driver_api.h"

namespace regard::cuda {

DeviceBuffer::DeviceBuffer(int device, std::size_t bytes) : device_(device) {
  if (bytes == 0) return;
  const ContextScope scope(device);
  const abi::CUresult result = Driver().mem_alloc(&address_, bytes);
  if (result == abi::CUDA_ERROR_OUT_OF_MEMORY) {
    throw Error("memory", std::to_string(bytes) + " bytes on cuda:" + std::to_string(device),
                "at most the " + std::to_string(MemoryOf(device).free_bytes) + " bytes that are free there");
  }
  CheckResult(result, "cuMemAlloc");
  bytes_ = bytes;
}

DeviceBuffer::~DeviceBuffer() {
  if (address_ == 0) return;
  try {
    const ContextScope scope(device_);
    Driver().mem_free(address_);
  } catch (...) {  // the context is gone, and its memory with it
  }
}

void DeviceBuffer::CheckInside(std::size_t offset, std::size_t bytes) const {
  if (offset <= bytes_ && bytes <= bytes_ - offset) return;
  throw Error("bytes", std::to_string(offset) + " + " + std::to_string(bytes),
              "at most the " + std::to_string(bytes_) + " bytes of the buffer");
}

void DeviceBuffer::CopyFromHost(const void* from, std::size_t bytes, std::size_t offset) {
  CheckInside(offset, bytes);
  if (bytes == 0) return;
  const ContextScope scope(device_);
  CheckResult(Driver().memcpy_htod(address_ + offset, from, bytes), "cuMemcpyHtoD");
}

void DeviceBuffer::CopyToHost(void* to, std::size_t bytes, std::size_t offset) const {
  CheckInside(offset, bytes);
  if (bytes == 0) return;
  const ContextScope scope(device_);
  CheckResult(Driver().memcpy_dtoh(to, address_ + offset, bytes), "cuMemcpyDtoH");
}

void DeviceBuffer::Fill(unsigned char value, Stream stream) {
  if (bytes_ == 0) return;
  const ContextScope scope(device_);
  CheckResult(Driver().memset_d8_async(address_, value, bytes_, stream), "cuMemsetD8Async");
}

void CopyOnDevice(int device, DevicePointer to, DevicePointer from, std::size_t bytes, Stream stream) {
  if (bytes == 0) return;
  const ContextScope scope(device);
  CheckResult(Driver().memcpy_dtod_async(to, from, bytes, stream), "cuMemcpyDtoDAsync");
}

OwnedStream::OwnedStream(int device) : device_(device) {
  const ContextScope scope(device);
  CheckResult(Driver().stream_create(&stream_, abi::CU_STREAM_NON_BLOCKING), "cuStreamCreate");
}

OwnedStream::~OwnedStream() {
  try {
    const ContextScope scope(device_);
    Driver().stream_destroy(stream_);
  } catch (...) {
  }
}

void OwnedStream::Synchronize() const { cuda::Synchronize(device_, stream_); }

void Synchronize(int device, Stream stream) {
  const ContextScope scope(device);
  CheckResult(Driver().stream_synchronize(stream), "cuStreamSynchronize");
}

EventTimer::EventTimer(int device) : device_(device) {
  const ContextScope scope(device);
  CheckResult(Driver().event_create(&begin_, abi::CU_EVENT_DEFAULT), "cuEventCreate");
  const abi::CUresult result = Driver().event_create(&end_, abi::CU_EVENT_DEFAULT);
  if (result != abi::CUDA_SUCCESS) Driver().event_destroy(begin_);
  CheckResult(result, "cuEventCreate");
}

EventTimer::~EventTimer() {
  try {
    const ContextScope scope(device_);
    Driver().event_destroy(begin_);
    Driver().event_destroy(end_);
  } catch (...) {
  }
}

void EventTimer::Begin(Stream stream) {
  const ContextScope scope(device_);
  CheckResult(Driver().event_record(begin_, stream), "cuEventRecord");
}

void EventTimer::End(Stream stream) {
  const ContextScope scope(device_);
  CheckResult(Driver().event_record(end_, stream), "cuEventRecord");
}

double EventTimer::Seconds() const {
  const ContextScope scope(device_);
  float milliseconds = 0;
  CheckResult(Driver().event_synchronize(end_), "cuEventSynchronize");
  CheckResult(Driver().event_elapsed_time(&milliseconds, begin_, end_), "cuEventElapsedTime");
  return milliseconds * 1e-3;
}

DeviceMemory MemoryOf(int device) {
  const ContextScope scope(device);
  DeviceMemory memory;
  CheckResult(Driver().mem_get_info(&memory.free_bytes, &memory.total_bytes), "cuMemGetInfo");
  return memory;
}

int DeviceOfAddress(const void* address) noexcept {
  const DriverApi& api = Driver();
  if (!api.status.ok || address == nullptr) return -1;
  const auto pointer = static_cast<DevicePointer>(reinterpret_cast<std::uintptr_t>(address));
  unsigned type = 0;
  int device = -1;
  if (api.pointer_get_attribute(&type, abi::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, pointer) != abi::CUDA_SUCCESS ||
      type != abi::CU_MEMORYTYPE_DEVICE ||
      api.pointer_get_attribute(&device, abi::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, pointer) != abi::CUDA_SUCCESS) {
    return -1;
  }
  return device;
}

}  // namespace regard::cuda
