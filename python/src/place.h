// Where the tensors of a call lie, and the stream that a call on a GPU is put on.
#pragma once

#include <string>

#include "python/src/dlpack_abi.h"
#include "python/src/object.h"
#include "python/src/tensor_types.h"
#include "regard/plan.h"
#include "regard/tensor.h"

namespace regard::python {

struct Place {
  Device device;
  const char* field = nullptr;  // the tensor that lies there; null: no tensor was seen yet
  Stream stream;                // of a GPU
};

// The device of a DLPack tensor. Throws Error{field} for one that regard has no kernels for.
Device DeviceOf(dlpack::Device device, const char* field);
dlpack::Device CodeOf(Device device);
std::string NameOf(Device device);  // "cuda:0", "host memory"

// The stream on which the library of a tensor type puts its work on GPU `index` now: PyTorch tells its current one. Of a
// library that does not tell it is the default stream, and `__dlpack__` is asked to make its tensors ready there.
Stream StreamOf(const TensorType& type, int index);

// A handle as `__dlpack__(stream=)` takes it, where 1 is the default stream.
PyObject* StreamNumber(Stream stream);

}  // namespace regard::python
