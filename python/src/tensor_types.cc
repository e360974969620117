// A small table of tensor types seen so far. Types in it are kept for good; there are few of them.
#include "python/src/tensor_types.h"

#include <iterator>
#include <string_view>

namespace regard::python {
namespace {

bool IsNumpyArray(PyTypeObject* type) {
  Object numpy;
  Object name = Object::Steal(PyUnicode_FromString("numpy"));
  PyObject* module = PyImport_GetModule(name.get());  // null: not imported, so that nothing can be an array of it
  if (module == nullptr) {
    PyErr_Clear();
    return false;
  }
  numpy = Object::Steal(module);
  PyObject* array = PyObject_GetAttrString(numpy.get(), "ndarray");
  if (array == nullptr) {
    PyErr_Clear();
    return false;
  }
  const Object owned = Object::Steal(array);
  return PyType_Check(array) && PyType_IsSubtype(type, reinterpret_cast<PyTypeObject*>(array));
}

const dlpack::ExchangeApi* ExchangeApiOf(PyTypeObject* type) {
  PyObject* capsule = PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__");
  const dlpack::ExchangeApi* api = nullptr;
  if (capsule != nullptr && PyCapsule_IsValid(capsule, "dlpack_exchange_api")) {
    api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
  }
  Py_XDECREF(capsule);  // the table itself lives as long as the process
  PyErr_Clear();
  while (api != nullptr && api->version.major != dlpack::kMajorVersion) api = api->previous;
  return api;
}

TensorType Classify(PyTypeObject* type) {
  TensorType info;
  info.type = type;
  PyObject* object = reinterpret_cast<PyObject*>(type);
  info.api = ExchangeApiOf(type);
  if (info.api != nullptr) {
    info.route = Route::kTable;
  } else if (IsNumpyArray(type)) {
    info.route = Route::kBuffer;
    info.numpy = true;
  } else if (PyObject_HasAttrString(object, "__dlpack__")) {
    info.route = Route::kDLPack;
    PyObject* module = PyObject_GetAttrString(object, "__module__");
    const char* name = module != nullptr && PyUnicode_Check(module) ? PyUnicode_AsUTF8(module) : nullptr;
    const std::string_view text = name != nullptr ? name : "";
    info.torch = (text == "torch" || text.starts_with("torch.")) && PyObject_HasAttrString(object, "detach");
    Py_XDECREF(module);
    PyErr_Clear();
  } else if (type->tp_as_buffer != nullptr && type->tp_as_buffer->bf_getbuffer != nullptr &&
             !PyType_IsSubtype(type, &PyBytes_Type) && !PyType_IsSubtype(type, &PyByteArray_Type)) {
    info.route = Route::kBuffer;
  }
  return info;
}

}  // namespace

TensorType TensorTypeOf(PyObject* object) {
  static TensorType known[32];
  static int count = 0;
  PyTypeObject* type = Py_TYPE(object);
  for (int i = 0; i < count; ++i) {
    if (known[i].type == type) return known[i];
  }
  const TensorType info = Classify(type);
  if (count < static_cast<int>(std::size(known))) {
    Py_INCREF(type);
    known[count++] = info;
  }
  return info;
}

std::string TakeErrorText() {
#if PY_VERSION_HEX >= 0x030C0000
  PyObject* value = PyErr_GetRaisedException();
#else
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  Py_XDECREF(type);
  Py_XDECREF(trace);
#endif
  PyObject* words = value != nullptr ? PyObject_Str(value) : nullptr;
  const char* text = words != nullptr ? PyUnicode_AsUTF8(words) : nullptr;
  std::string result = text != nullptr ? text : "an error without words";
  Py_XDECREF(words);
  Py_XDECREF(value);
  PyErr_Clear();
  return result;
}

Numpy& TheNumpy() {
  static Numpy numpy;
  if (numpy.empty == nullptr) {
    const Object module = Object::Steal(PyImport_ImportModule("numpy"));
    Object uint8 = Object::Steal(PyObject_GetAttrString(module.get(), "uint8"));
    Object uint16 = Object::Steal(PyObject_GetAttrString(module.get(), "uint16"));
    Object empty = Object::Steal(PyObject_GetAttrString(module.get(), "empty"));
    numpy.uint8 = uint8.Release();
    numpy.uint16 = uint16.Release();
    numpy.empty = empty.Release();
  }
  return numpy;
}

PyObject* Numpy::DTypeObject(DType type, const char* field) {
  static constexpr const char* kNames[] = {"float32",     "float16", "bfloat16", "float8_e4m3fn",
                                           "float8_e5m2", "int32",   "uint8",    "bool"};
  const auto index = static_cast<std::size_t>(type);
  if (dtypes_[index] != nullptr) return dtypes_[index];
  const Object numpy = Object::Steal(PyImport_ImportModule("numpy"));
  Object scalar;
  if (type == DType::kBF16 || IsFp8(type)) {
    PyObject* module = PyImport_ImportModule("ml_dtypes");
    if (module == nullptr) {
      PyErr_Clear();
      throw Error(field, std::string(kNames[index]) + " as a NumPy array", "the package ml_dtypes to be installed");
    }
    const Object ml_dtypes = Object::Steal(module);
    scalar = Object::Steal(PyObject_GetAttrString(module, kNames[index]));
  } else {
    scalar = Object::Steal(PyUnicode_FromString(kNames[index]));
  }
  const Object make = Object::Steal(PyObject_GetAttrString(numpy.get(), "dtype"));
  Object dtype = Object::Steal(PyObject_CallOneArg(make.get(), scalar.get()));
  return dtypes_[index] = dtype.Release();
}

const DType* Numpy::MlType(PyObject* dtype) {
  for (int i = 0; i < ml_count_; ++i) {
    if (ml_[i].object == dtype) return ml_[i].known ? &ml_[i].type : nullptr;
  }
  const Object name = Object::Steal(PyObject_GetAttrString(dtype, "name"));
  const char* text = PyUnicode_Check(name.get()) ? PyUnicode_AsUTF8(name.get()) : "";
  const std::string_view word = text != nullptr ? text : "";
  static constexpr DType kTypes[] = {DType::kBF16, DType::kF8E4M3, DType::kF8E5M2};
  static constexpr std::string_view kWords[] = {"bfloat16", "float8_e4m3fn", "float8_e5m2"};
  for (int i = 0; i < 3; ++i) {
    if (word != kWords[i]) continue;
    if (ml_count_ < static_cast<int>(std::size(ml_))) {
      ml_[ml_count_] = {Py_NewRef(dtype), true, kTypes[i]};
      ++ml_count_;
    }
    return &kTypes[i];
  }
  if (ml_count_ < static_cast<int>(std::size(ml_))) {
    ml_[ml_count_] = {Py_NewRef(dtype), false, DType::kF32};
    ++ml_count_;
  }
  return nullptr;
}

}  // namespace regard::python
