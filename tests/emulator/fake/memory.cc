// Memory of the fake driver: allocations of the emulated device, whose addresses the host cannot read.
#include <algorithm>
#include <cstring>
#include <map>
#include <new>

#include "tests/emulator/device_memory.h"
#include "tests/emulator/fake/state.h"

using namespace regard::cuda::abi;
using namespace regard::emulator::fake;
using regard::emulator::DeviceMemory;

namespace {

std::map<void*, CUdeviceptr> host_allocations;
std::map<CUdeviceptr, int> devices;  // of allocations

CUresult Allocate(const char* entry, CUdeviceptr* pointer, std::size_t bytes) {
  const std::lock_guard lock(Mutex());
  if (!CurrentContext()) return CUDA_ERROR_INVALID_CONTEXT;
  if (bytes == 0) return Refuse(CUDA_ERROR_INVALID_VALUE, entry, "0 bytes");
  try {
    *pointer = DeviceMemory::Get().Allocate(bytes, entry);
  } catch (const std::bad_alloc&) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  devices[*pointer] = CurrentContext()->device;
  return CUDA_SUCCESS;
}

CUresult Release(const char* entry, CUdeviceptr pointer) {
  const std::lock_guard lock(Mutex());
  if (pointer == 0 || DeviceMemory::Get().Release(pointer)) return CUDA_SUCCESS;
  return Refuse(CUDA_ERROR_INVALID_VALUE, entry, "the address of no allocation");
}

// Host memory of a range; null, and said so, where it is none of a live allocation.
std::byte* Range(const char* entry, CUdeviceptr address, std::size_t bytes) {
  std::byte* found = DeviceMemory::Get().Find(address, bytes);
  if (!found) {
    bool released = false;
    Refuse(0, entry, DeviceMemory::Get().Explain(address, bytes, released));
  }
  return found;
}

}  // namespace

extern "C" {

REGARD_FAKE_API CUresult cuMemAlloc_v2(CUdeviceptr* pointer, std::size_t bytes) {
  return Allocate("cuMemAlloc", pointer, bytes);
}
REGARD_FAKE_API CUresult cuMemAllocAsync(CUdeviceptr* pointer, std::size_t bytes, CUstream) {
  return Allocate("cuMemAllocAsync", pointer, bytes);
}
REGARD_FAKE_API CUresult cuMemFree_v2(CUdeviceptr pointer) {
  return Release("cuMemFree", pointer);
}
REGARD_FAKE_API CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream) {
  return Release("cuMemFreeAsync", pointer);
}
REGARD_FAKE_API CUresult cuMemGetInfo_v2(std::size_t* free_bytes, std::size_t* total_bytes) {
  const std::lock_guard lock(Mutex());
  *total_bytes = std::size_t{16} << 30;
  *free_bytes = *total_bytes - std::min(*total_bytes, DeviceMemory::Get().live_bytes());
  return CUDA_SUCCESS;
}

// Pinned memory is an allocation whose bytes the host sees too.
REGARD_FAKE_API CUresult cuMemHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  CUdeviceptr address = 0;
  const CUresult result = Allocate("cuMemHostAlloc", &address, bytes);
  if (result != CUDA_SUCCESS) return result;
  const std::lock_guard lock(Mutex());
  *pointer = DeviceMemory::Get().Find(address, bytes);
  host_allocations[*pointer] = address;
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* pointer, void* host, unsigned) {
  const std::lock_guard lock(Mutex());
  const auto at = host_allocations.find(host);
  if (at == host_allocations.end()) return CUDA_ERROR_INVALID_VALUE;
  *pointer = at->second;
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuMemFreeHost(void* pointer) {
  CUdeviceptr address = 0;
  {
    const std::lock_guard lock(Mutex());
    const auto at = host_allocations.find(pointer);
    if (at == host_allocations.end()) return CUDA_ERROR_INVALID_VALUE;
    address = at->second;
    host_allocations.erase(at);
  }
  return Release("cuMemFreeHost", address);
}

REGARD_FAKE_API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, std::size_t bytes) {
  const std::lock_guard lock(Mutex());
  std::byte* const target = Range("cuMemcpyHtoD", to, bytes);
  if (!target) return CUDA_ERROR_INVALID_VALUE;
  std::memcpy(target, from, bytes);
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, std::size_t bytes, CUstream) {
  return cuMemcpyHtoD_v2(to, from, bytes);
}
REGARD_FAKE_API CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, std::size_t bytes) {
  const std::lock_guard lock(Mutex());
  const std::byte* const source = Range("cuMemcpyDtoH", from, bytes);
  if (!source) return CUDA_ERROR_INVALID_VALUE;
  std::memcpy(to, source, bytes);
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream) {
  const std::lock_guard lock(Mutex());
  std::byte* const target = Range("cuMemcpyDtoDAsync", to, bytes);
  const std::byte* const source = Range("cuMemcpyDtoDAsync", from, bytes);
  if (!target || !source) return CUDA_ERROR_INVALID_VALUE;
  std::memmove(target, source, bytes);
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, std::size_t bytes, CUstream) {
  const std::lock_guard lock(Mutex());
  std::byte* const target = Range("cuMemsetD8Async", to, bytes);
  if (!target) return CUDA_ERROR_INVALID_VALUE;
  std::memset(target, value, bytes);
  return CUDA_SUCCESS;
}
REGARD_FAKE_API CUresult cuPointerGetAttribute(void* value, int attribute, CUdeviceptr pointer) {
  const std::lock_guard lock(Mutex());
  std::uint64_t begin = 0;
  std::size_t bytes = 0;
  if (!DeviceMemory::Get().Range(pointer, begin, bytes)) return CUDA_ERROR_INVALID_VALUE;
  if (attribute == CU_POINTER_ATTRIBUTE_MEMORY_TYPE) {
    const unsigned type = CU_MEMORYTYPE_DEVICE;
    std::memcpy(value, &type, sizeof(type));
  } else if (attribute == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL) {
    const int ordinal = devices.at(begin);
    std::memcpy(value, &ordinal, sizeof(ordinal));
  } else {
    return Refuse(CUDA_ERROR_INVALID_VALUE, "cuPointerGetAttribute", "unknown attribute " + std::to_string(attribute));
  }
  return CUDA_SUCCESS;
}

}  // extern "C"

namespace regard::emulator::fake {

std::size_t LiveAllocations() {
  const std::lock_guard lock(Mutex());
  return DeviceMemory::Get().live();
}
std::size_t LiveBytes() {
  const std::lock_guard lock(Mutex());
  return DeviceMemory::Get().live_bytes();
}

}  // namespace regard::emulator::fake
