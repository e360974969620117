// How a tensor library is talked to, by the type of its tensors; and the handles of NumPy that the bindings call.
#pragma once

#include "python/src/dlpack_abi.h"
#include "python/src/object.h"
#include "regard/dtype.h"

namespace regard::python {

enum class Route {
  kTable,   // C functions of `__dlpack_c_exchange_api__`
  kBuffer,  // buffer protocol: NumPy arrays, memoryview
  kDLPack,  // `__dlpack__`
  kNone,
};

struct TensorType {
  PyTypeObject* type = nullptr;
  Route route = Route::kNone;
  const dlpack::ExchangeApi* api = nullptr;  // kTable
  bool numpy = false;                        // an ndarray
  bool torch = false;                        // a torch.Tensor without that table
};

// Looked up once for each type.
TensorType TensorTypeOf(PyObject* object);

// NumPy's functions and dtypes; imports numpy. Throws PythonError where it is not installed.
struct Numpy {
  PyObject* empty = nullptr;
  PyObject *uint8 = nullptr, *uint16 = nullptr;
  // The dtype object of `type`; bf16 and fp8 come from ml_dtypes. Throws Error{field} where that is not installed.
  PyObject* DTypeObject(DType type, const char* field);
  // The type of an array whose dtype is one of ml_dtypes', else nothing. Borrowed `dtype`.
  const DType* MlType(PyObject* dtype);

 private:
  PyObject* dtypes_[8] = {};
  struct {
    PyObject* object;
    bool known;
    DType type;
  } ml_[8] = {};
  int ml_count_ = 0;
};
Numpy& TheNumpy();

// The text of the exception that is set, which is cleared.
std::string TakeErrorText();

}  // namespace regard::python
