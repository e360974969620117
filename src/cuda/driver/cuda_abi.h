// What regard uses of the CUDA Driver API (libcuda.so.1), declared here so that no toolkit is needed to build: types,
// enumerators and signatures of the ABI, under the names that the API's documentation gives them. The `_v2` of a symbol
// belongs to its ABI: it is the name that dlsym is asked for. Everything here is in CUDA 12.0 and later.
#pragma once

#include <cstddef>

namespace regard::cuda::abi {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = struct CUctx_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUstream = struct CUstream_st*;
using CUevent = struct CUevent_st*;

inline constexpr CUresult CUDA_SUCCESS = 0;
inline constexpr CUresult CUDA_ERROR_INVALID_VALUE = 1;
inline constexpr CUresult CUDA_ERROR_OUT_OF_MEMORY = 2;
inline constexpr CUresult CUDA_ERROR_NOT_INITIALIZED = 3;
inline constexpr CUresult CUDA_ERROR_DEINITIALIZED = 4;
inline constexpr CUresult CUDA_ERROR_NO_DEVICE = 100;
inline constexpr CUresult CUDA_ERROR_INVALID_DEVICE = 101;
inline constexpr CUresult CUDA_ERROR_INVALID_IMAGE = 200;
inline constexpr CUresult CUDA_ERROR_INVALID_CONTEXT = 201;
inline constexpr CUresult CUDA_ERROR_NO_BINARY_FOR_GPU = 209;
inline constexpr CUresult CUDA_ERROR_INVALID_HANDLE = 400;
inline constexpr CUresult CUDA_ERROR_NOT_FOUND = 500;

// CUdevice_attribute
inline constexpr int CU_DEVICE_ATTRIBUTE_CLOCK_RATE = 13;                             // kHz
inline constexpr int CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16;
inline constexpr int CU_DEVICE_ATTRIBUTE_INTEGRATED = 18;
inline constexpr int CU_DEVICE_ATTRIBUTE_PCI_BUS_ID = 33;
inline constexpr int CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE = 36;                      // kHz
inline constexpr int CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH = 37;                // bits
inline constexpr int CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE = 38;                          // bytes
inline constexpr int CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR = 39;
inline constexpr int CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75;
inline constexpr int CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76;
inline constexpr int CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR = 81;   // bytes
inline constexpr int CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR = 82;       // 32-bit ones
inline constexpr int CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97;      // bytes

// CUfunction_attribute
inline constexpr int CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0;
inline constexpr int CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1;
inline constexpr int CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES = 3;
inline constexpr int CU_FUNC_ATTRIBUTE_NUM_REGS = 4;
inline constexpr int CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;

// CUpointer_attribute
inline constexpr int CU_POINTER_ATTRIBUTE_MEMORY_TYPE = 2;      // unsigned: CU_MEMORYTYPE_*
inline constexpr int CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9;   // int
inline constexpr unsigned CU_MEMORYTYPE_HOST = 1;
inline constexpr unsigned CU_MEMORYTYPE_DEVICE = 2;

// Flags
inline constexpr unsigned CU_STREAM_NON_BLOCKING = 1;
inline constexpr unsigned CU_EVENT_DEFAULT = 0;
inline constexpr unsigned CU_MEMHOSTALLOC_PORTABLE = 1;
inline constexpr unsigned CU_MEMHOSTALLOC_DEVICEMAP = 2;

// Values of cuLaunchKernel's `extra`: a list of (name, value) that ends with CU_LAUNCH_PARAM_END.
inline void* const CU_LAUNCH_PARAM_END = nullptr;
inline void* const CU_LAUNCH_PARAM_BUFFER_POINTER = reinterpret_cast<void*>(1);
inline void* const CU_LAUNCH_PARAM_BUFFER_SIZE = reinterpret_cast<void*>(2);

// Every entry point that regard calls: X(field, symbol, parameters). All return CUresult.
#define REGARD_CUDA_ENTRY_POINTS(X)                                                                                   \
  X(init, cuInit, (unsigned flags))                                                                                   \
  X(driver_get_version, cuDriverGetVersion, (int* version))                                                           \
  X(get_error_name, cuGetErrorName, (CUresult error, const char** text))                                              \
  X(get_error_string, cuGetErrorString, (CUresult error, const char** text))                                          \
  X(device_get_count, cuDeviceGetCount, (int* count))                                                                 \
  X(device_get, cuDeviceGet, (CUdevice * device, int ordinal))                                                        \
  X(device_get_name, cuDeviceGetName, (char* name, int length, CUdevice device))                                      \
  X(device_get_attribute, cuDeviceGetAttribute, (int* value, int attribute, CUdevice device))                         \
  X(device_total_mem, cuDeviceTotalMem_v2, (std::size_t* bytes, CUdevice device))                                     \
  X(primary_ctx_retain, cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))                             \
  X(ctx_get_current, cuCtxGetCurrent, (CUcontext * context))                                                          \
  X(ctx_push_current, cuCtxPushCurrent_v2, (CUcontext context))                                                       \
  X(ctx_pop_current, cuCtxPopCurrent_v2, (CUcontext * context))                                                       \
  X(ctx_get_device, cuCtxGetDevice, (CUdevice * device))                                                              \
  X(ctx_get_id, cuCtxGetId, (CUcontext context, unsigned long long* id))                                              \
  X(ctx_synchronize, cuCtxSynchronize, ())                                                                            \
  X(module_load_data, cuModuleLoadData, (CUmodule * module, const void* image))                                       \
  X(module_unload, cuModuleUnload, (CUmodule module))                                                                 \
  X(module_get_function, cuModuleGetFunction, (CUfunction * function, CUmodule module, const char* name))             \
  X(func_get_attribute, cuFuncGetAttribute, (int* value, int attribute, CUfunction function))                         \
  X(func_set_attribute, cuFuncSetAttribute, (CUfunction function, int attribute, int value))                          \
  X(launch_kernel, cuLaunchKernel,                                                                                    \
    (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,      \
     unsigned block_z, unsigned shared_bytes, CUstream stream, void** parameters, void** extra))                      \
  X(stream_create, cuStreamCreate, (CUstream * stream, unsigned flags))                                               \
  X(stream_destroy, cuStreamDestroy_v2, (CUstream stream))                                                            \
  X(stream_synchronize, cuStreamSynchronize, (CUstream stream))                                                       \
  X(event_create, cuEventCreate, (CUevent * event, unsigned flags))                                                   \
  X(event_destroy, cuEventDestroy_v2, (CUevent event))                                                                \
  X(event_record, cuEventRecord, (CUevent event, CUstream stream))                                                    \
  X(event_synchronize, cuEventSynchronize, (CUevent event))                                                           \
  X(event_elapsed_time, cuEventElapsedTime, (float* milliseconds, CUevent begin, CUevent end))                        \
  X(mem_alloc, cuMemAlloc_v2, (CUdeviceptr * pointer, std::size_t bytes))                                             \
  X(mem_free, cuMemFree_v2, (CUdeviceptr pointer))                                                                    \
  X(mem_get_info, cuMemGetInfo_v2, (std::size_t * free_bytes, std::size_t* total_bytes))                              \
  X(mem_host_alloc, cuMemHostAlloc, (void** pointer, std::size_t bytes, unsigned flags))                              \
  X(mem_host_get_device_pointer, cuMemHostGetDevicePointer_v2, (CUdeviceptr * pointer, void* host, unsigned flags))   \
  X(mem_free_host, cuMemFreeHost, (void* pointer))                                                                    \
  X(memcpy_htod, cuMemcpyHtoD_v2, (CUdeviceptr to, const void* from, std::size_t bytes))                              \
  X(memcpy_dtoh, cuMemcpyDtoH_v2, (void* to, CUdeviceptr from, std::size_t bytes))                                    \
  X(memcpy_htod_async, cuMemcpyHtoDAsync_v2,                                                                          \
    (CUdeviceptr to, const void* from, std::size_t bytes, CUstream stream))                                           \
  X(memcpy_dtod_async, cuMemcpyDtoDAsync_v2, (CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream))  \
  X(memset_d8_async, cuMemsetD8Async, (CUdeviceptr to, unsigned char value, std::size_t bytes, CUstream stream))      \
  X(pointer_get_attribute, cuPointerGetAttribute, (void* value, int attribute, CUdeviceptr pointer))

// Those that regard can do without: null where the driver has none.
#define REGARD_CUDA_OPTIONAL_ENTRY_POINTS(X)                                                     \
  X(mem_alloc_async, cuMemAllocAsync, (CUdeviceptr * pointer, std::size_t bytes, CUstream stream)) \
  X(mem_free_async, cuMemFreeAsync, (CUdeviceptr pointer, CUstream stream))

struct CudaEntryPoints {
#define REGARD_FIELD(field, symbol, parameters) CUresult(*field) parameters = nullptr;
  REGARD_CUDA_ENTRY_POINTS(REGARD_FIELD)
  REGARD_CUDA_OPTIONAL_ENTRY_POINTS(REGARD_FIELD)
#undef REGARD_FIELD
};

}  // namespace regard::cuda::abi
