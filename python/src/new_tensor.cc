// New tensors in the library of the caller's (tensors.h).
#include <cstring>
#include <memory>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "python/src/dlpack_view.h"
#include "python/src/tensor_types.h"
#include "python/src/tensors.h"

namespace nb = nanobind;

namespace regard::python {
namespace {

PyObject* device_array_type = nullptr;

}  // namespace

void SetDeviceArrayType(PyObject* type) { device_array_type = Py_NewRef(type); }

NewTensor::NewTensor(PyObject* like, DType dtype, std::span<const std::int64_t> shape, const char* field,
                     Holder& holder)
    : place_(holder.place()) {
  view_.dtype = dtype;
  view_.rank = static_cast<int>(shape.size());
  std::int64_t stride = 1;
  for (std::size_t d = shape.size(); d-- > 0;) {
    view_.shape[d] = shape[d];
    view_.stride[d] = stride;
    stride *= shape[d] > 0 ? shape[d] : 1;
  }
  const TensorType type = TensorTypeOf(like);
  if (type.route == Route::kTable) {
    MakeByTable(*type.api, field);
  } else if (type.route == Route::kBuffer) {
    MakeNumpy(field, holder);
  } else if (type.torch) {
    MakeTorch(like, field, holder);
  } else {
    MakeOwned(like);
  }
}

void NewTensor::MakeOwned(PyObject* like) {
  like_ = Object::Share(like);
  const auto& s = view_.shape;
  const Device device = place_.device;
  switch (view_.rank) {
    case 1: owned_ = OwnedTensor(view_.dtype, {s[0]}, device); break;
    case 2: owned_ = OwnedTensor(view_.dtype, {s[0], s[1]}, device); break;
    case 3: owned_ = OwnedTensor(view_.dtype, {s[0], s[1], s[2]}, device); break;
    default: owned_ = OwnedTensor(view_.dtype, {s[0], s[1], s[2], s[3]}, device); break;
  }
  view_ = owned_.view();
}

void NewTensor::MakeNumpy(const char* field, Holder& holder) {
  Numpy& numpy = TheNumpy();
  const Object shape = Object::Steal(PyTuple_New(view_.rank));
  for (int d = 0; d < view_.rank; ++d) {
    PyTuple_SET_ITEM(shape.get(), d, PyLong_FromLongLong(view_.shape[static_cast<std::size_t>(d)]));
  }
  PyObject* const arguments[] = {shape.get(), numpy.DTypeObject(view_.dtype, field)};
  object_ = Object::Steal(PyObject_Vectorcall(numpy.empty, arguments, 2, nullptr));
  view_ = ViewOf(object_.get(), field, Access::kWrite, holder);
}

void NewTensor::MakeByTable(const dlpack::ExchangeApi& api, const char* field) {
  dlpack::Tensor prototype{};
  prototype.device = CodeOf(place_.device);
  prototype.ndim = view_.rank;
  prototype.dtype = CodeOf(view_.dtype);
  prototype.shape = view_.shape.data();
  std::string why;
  dlpack::ManagedVersioned* managed = nullptr;
  const auto note = [](void* context, const char*, const char* message) {
    *static_cast<std::string*>(context) = message;
  };
  if (api.allocate(&prototype, &managed, &why, note) != 0) throw Error(field, why, "free memory for the result");
  view_ = WithAddress(DlpackView(managed->tensor, field));
  void* object = nullptr;
  if (api.object_from_managed(managed, &object) != 0) throw PythonError();
  object_ = Object::Steal(static_cast<PyObject*>(object));
}

// For a torch older than the table of C functions.
void NewTensor::MakeTorch(PyObject* like, const char* field, Holder& holder) {
  static constexpr const char* kNames[] = {"float32",     "float16", "bfloat16", "float8_e4m3fn",
                                           "float8_e5m2", "int32",   "uint8",    "bool"};
  const Object torch = Object::Steal(PyImport_ImportModule("torch"));
  const Object dtype = Object::Steal(PyObject_GetAttrString(torch.get(), kNames[static_cast<std::size_t>(view_.dtype)]));
  const Object empty = Object::Steal(PyObject_GetAttrString(torch.get(), "empty"));
  const Object shape = Object::Steal(PyTuple_New(view_.rank));
  for (int d = 0; d < view_.rank; ++d) {
    PyTuple_SET_ITEM(shape.get(), d, PyLong_FromLongLong(view_.shape[static_cast<std::size_t>(d)]));
  }
  const Object positional = Object::Steal(PyTuple_Pack(1, shape.get()));
  const Object device = Object::Steal(PyObject_GetAttrString(like, "device"));
  const Object named = Object::Steal(Py_BuildValue("{s:O,s:O}", "dtype", dtype.get(), "device", device.get()));
  object_ = Object::Steal(PyObject_Call(empty.get(), positional.get(), named.get()));
  view_ = ViewOf(object_.get(), field, Access::kWrite, holder);
}

Object NewTensor::Finish() {
  if (object_) return std::move(object_);
  auto share = std::make_unique<OwnedTensor>(std::move(owned_));
  std::size_t shape[TensorView::kMaxRank];
  for (int d = 0; d < view_.rank; ++d) shape[d] = static_cast<std::size_t>(view_.shape[static_cast<std::size_t>(d)]);
  const dlpack::DataType code = CodeOf(view_.dtype);
  const nb::capsule owner(share.release(), [](void* p) noexcept { delete static_cast<OwnedTensor*>(p); });
  const dlpack::Device device = CodeOf(place_.device);
  const nb::ndarray<nb::array_api> array(view_.data, static_cast<std::size_t>(view_.rank), shape, owner, nullptr,
                                         nb::dlpack::dtype{code.code, code.bits, code.lanes}, device.type, device.id);
  Object exported = Object::Steal(nb::cast(array).release().ptr());
  if (place_.device.type == DeviceType::kCuda) {
    const Object stream = Object::Steal(PyLong_FromVoidPtr(place_.stream.handle));
    exported = Object::Steal(
        PyObject_CallFunction(device_array_type, "OiO", exported.get(), place_.device.index, stream.get()));
  }
  PyObject* space = PyObject_CallMethod(like_.get(), "__array_namespace__", nullptr);
  if (space == nullptr) {
    PyErr_Clear();
    return exported;
  }
  const Object owned_space = Object::Steal(space);
  return Object::Steal(PyObject_CallMethod(space, "from_dlpack", "O", exported.get()));
}

}  // namespace regard::python
