// Devices by DLPack's numbers; the current stream of a tensor's library, asked for only where a tensor lies on a GPU.
#include "python/src/place.h"

#include <cstdint>

namespace regard::python {
namespace {

std::string NameOf(dlpack::Device d) {
  const char* kind = d.type == 10   ? "rocm"
                     : d.type == 8  ? "metal"
                     : d.type == 4  ? "opencl"
                     : d.type == 14 ? "oneapi"
                                    : nullptr;
  return (kind != nullptr ? kind : "DLPack device " + std::to_string(d.type)) + ":" + std::to_string(d.id);
}

}  // namespace

Device DeviceOf(dlpack::Device device, const char* field) {
  switch (device.type) {
    case dlpack::kCpu:
    case dlpack::kCudaHost:
    case dlpack::kRocmHost:
      return {};
    case dlpack::kCuda:
    case dlpack::kCudaManaged:
      return {DeviceType::kCuda, device.id};
    default:
      throw Error(field, "a tensor on " + NameOf(device),
                  "a tensor in host memory or on a CUDA device: regard has no kernels for that device");
  }
}

dlpack::Device CodeOf(Device device) {
  return device.type == DeviceType::kCuda ? dlpack::Device{dlpack::kCuda, device.index} : dlpack::Device{dlpack::kCpu, 0};
}

std::string NameOf(Device device) {
  return device.type == DeviceType::kCuda ? "cuda:" + std::to_string(device.index) : "host memory";
}

Stream StreamOf(const TensorType& type, int index) {
  if (type.route == Route::kTable) {
    void* stream = nullptr;
    if (type.api->current_stream == nullptr) return {};
    if (type.api->current_stream(dlpack::kCuda, index, &stream) != 0) throw PythonError();
    return {stream};
  }
  if (!type.torch) return {};
  const Object cuda = Object::Steal(PyImport_ImportModule("torch.cuda"));
  const Object current = Object::Steal(PyObject_CallMethod(cuda.get(), "current_stream", "i", index));
  const Object handle = Object::Steal(PyObject_GetAttrString(current.get(), "cuda_stream"));
  void* stream = PyLong_AsVoidPtr(handle.get());
  if (PyErr_Occurred() != nullptr) throw PythonError();
  return {stream};
}

PyObject* StreamNumber(Stream stream) {
  return stream.handle == nullptr ? PyLong_FromLong(1) : PyLong_FromVoidPtr(stream.handle);
}

}  // namespace regard::python
