// The binary interface of DLPack 1.x as far as the bindings use it: tensors, the versioned managed tensor, and the table
// of C functions that a tensor type may publish as `__dlpack_c_exchange_api__`.
// Source: dlpack.h of DLPack 1.3. Declared here, since the build then needs no DLPack package.
#pragma once

#include <cstdint>

namespace regard::python::dlpack {

inline constexpr std::uint32_t kMajorVersion = 1, kMinorVersion = 0;
inline constexpr std::int32_t kCpu = 1, kCuda = 2, kCudaHost = 3, kRocmHost = 11, kCudaManaged = 13;
inline constexpr std::uint8_t kInt = 0, kUInt = 1, kFloat = 2, kBFloat = 4, kBool = 6, kFloat8E4M3Fn = 10,
                              kFloat8E5M2 = 12;
inline constexpr std::uint64_t kReadOnlyFlag = 1;

struct Version {
  std::uint32_t major, minor;
};
struct Device {
  std::int32_t type, id;
};
struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;    // [ndim]
  std::int64_t* strides;  // [ndim], in elements; null: row-major
  std::uint64_t byte_offset;
};
struct Managed {  // capsule "dltensor"
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};
struct ManagedVersioned {  // capsule "dltensor_versioned"
  Version version;
  void* context;
  void (*deleter)(ManagedVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};

using SetError = void (*)(void* context, const char* kind, const char* message);
struct ExchangeApi {  // capsule "dlpack_exchange_api" on the type
  Version version;
  ExchangeApi* previous;
  int (*allocate)(Tensor* prototype, ManagedVersioned** out, void* error_context, SetError set_error);
  int (*managed_from_object)(void* object, ManagedVersioned** out);
  int (*object_from_managed)(ManagedVersioned* tensor, void** object);
  int (*tensor_from_object)(void* object, Tensor* out);  // may be null; a view that lives as long as the object
  int (*current_stream)(std::int32_t device_type, std::int32_t device_id, void** stream);
};

}  // namespace regard::python::dlpack
