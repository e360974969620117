// Views of the caller's tensors (tensors.h). Holds what it borrows in a Holder.
#include "python/src/tensors.h"

#include <cstring>
#include <limits>
#include <string_view>

#include "python/src/dlpack_view.h"
#include "python/src/tensor_types.h"

namespace regard::python {
namespace {

DType TypeOfFormat(const Py_buffer& buffer, const char* field) {
  const char* format = buffer.format != nullptr ? buffer.format : "B";
  if (*format == '@' || *format == '=' || *format == '<') ++format;
  if (std::strlen(format) == 1) {
    switch (*format) {
      case 'f': return DType::kF32;
      case 'e': return DType::kF16;
      case 'B': return DType::kU8;
      case '?': return DType::kBool;
      case 'i':
      case 'l':
        if (buffer.itemsize == 4) return DType::kI32;
        break;
      default: break;
    }
  }
  const std::string_view letter = format;
  const std::string bits = std::to_string(buffer.itemsize * 8);
  std::string name = "elements of format '" + std::string(letter) + "'";
  if (letter == "d" || letter == "g") name = "float" + bits;
  if (letter == "l" || letter == "q" || letter == "h" || letter == "b") name = "int" + bits;
  if (letter == "L" || letter == "Q" || letter == "H" || letter == "I") name = "uint" + bits;
  if (!letter.empty() && letter[0] == '>') name += " (bytes in big-endian order)";
  throw Error(field, name, kTypesTaken);
}

TensorView ViewOf(const Py_buffer& buffer, const DType* dtype, const char* field) {
  TensorView view;
  view.dtype = dtype != nullptr ? *dtype : TypeOfFormat(buffer, field);
  if (buffer.ndim > TensorView::kMaxRank) {
    throw Error(field, std::to_string(buffer.ndim) + " dimensions", "at most " + std::to_string(TensorView::kMaxRank));
  }
  view.rank = buffer.ndim;
  for (int d = 0; d < buffer.ndim; ++d) {
    const auto n = static_cast<std::size_t>(d);
    if (buffer.strides[d] % buffer.itemsize != 0) {
      throw Error(field, "a stride of " + std::to_string(buffer.strides[d]) + " bytes",
                  "strides in whole elements of " + std::to_string(buffer.itemsize) + " bytes");
    }
    view.shape[n] = buffer.shape[d];
    view.stride[n] = buffer.strides[d] / buffer.itemsize;
  }
  view.data = buffer.buf;
  return view;
}

// Fills the next buffer of `holder`.
const Py_buffer& Borrow(PyObject* object, Access access, const char* field, Holder& holder) {
  Py_buffer* buffer = holder.NewBuffer();
  const int flags = PyBUF_STRIDES | PyBUF_FORMAT | (access == Access::kWrite ? PyBUF_WRITABLE : 0);
  if (PyObject_GetBuffer(object, buffer, flags) != 0) {
    holder.UndoBuffer();
    throw Error(field, TypeName(object) + " (" + TakeErrorText() + ")",
                access == Access::kWrite ? "an array that may be written to" : "an array of numbers");
  }
  return *buffer;
}

TensorView ViewOfBuffer(PyObject* object, bool numpy, const char* field, Access access, Holder& holder) {
  if (numpy) {
    static PyObject* const dtype_name = PyUnicode_InternFromString("dtype");
    const Object dtype = Object::Steal(PyObject_GetAttr(object, dtype_name));
    if (const DType* type = TheNumpy().MlType(dtype.get())) {
      static PyObject* const view_name = PyUnicode_InternFromString("view");
      PyObject* bits = SizeOf(*type) == 1 ? TheNumpy().uint8 : TheNumpy().uint16;
      Object raw = Object::Steal(PyObject_CallMethodOneArg(object, view_name, bits));
      const Py_buffer& buffer = Borrow(raw.get(), access, field, holder);
      holder.Keep(std::move(raw));
      return ViewOf(buffer, type, field);
    }
  }
  return ViewOf(Borrow(object, access, field, holder), nullptr, field);
}

bool RequiresGrad(PyObject* object) {
  PyObject* flag = PyObject_GetAttrString(object, "requires_grad");
  const bool requires_grad = flag == Py_True;
  Py_XDECREF(flag);
  PyErr_Clear();
  return requires_grad;
}

// Differentiation lives above the calls: a tensor that requires grad is read through its detached twin.
Object Detached(PyObject* object) { return Object::Steal(PyObject_CallMethod(object, "detach", nullptr)); }

TensorView ViewByTable(PyObject* object, const dlpack::ExchangeApi& api, const char* field, Holder& holder,
                       bool detached = false) {
  dlpack::Tensor tensor{};
  if (api.tensor_from_object != nullptr) {
    if (api.tensor_from_object(object, &tensor) == 0) return DlpackView(tensor, field);
  } else {
    dlpack::ManagedVersioned* managed = nullptr;
    if (api.managed_from_object(object, &managed) == 0) {
      PyObject* capsule = PyCapsule_New(managed, nullptr, [](PyObject* c) {
        auto* held = static_cast<dlpack::ManagedVersioned*>(PyCapsule_GetPointer(c, nullptr));
        if (held->deleter != nullptr) held->deleter(held);
      });
      holder.Keep(Object::Steal(capsule));
      return DlpackView(managed->tensor, field);
    }
  }
  const std::string why = TakeErrorText();
  if (!detached && RequiresGrad(object)) {
    Object plain = Detached(object);
    const TensorView view = ViewByTable(plain.get(), api, field, holder, true);
    holder.Keep(std::move(plain));
    return view;
  }
  throw Error(field, TypeName(object) + " (" + why + ")", "a dense tensor");
}

// A capsule of object.__dlpack__(), of the newest protocol that it speaks; of a tensor on a GPU one that is ready on the
// call's stream.
Object CapsuleOf(PyObject* object, const Place& place) {
  const Object method = Object::Steal(PyObject_GetAttrString(object, "__dlpack__"));
  const Object none = Object::Steal(PyTuple_New(0));
  const auto options = [&](bool version) {
    Object named = Object::Steal(PyDict_New());
    if (version) {
      const Object newest = Object::Steal(Py_BuildValue("(ii)", 1, 0));
      if (PyDict_SetItemString(named.get(), "max_version", newest.get()) != 0) throw PythonError();
    }
    if (place.device.type == DeviceType::kCuda) {
      const Object stream = Object::Steal(StreamNumber(place.stream));
      if (PyDict_SetItemString(named.get(), "stream", stream.get()) != 0) throw PythonError();
    }
    return named;
  };
  PyObject* capsule = PyObject_Call(method.get(), none.get(), options(true).get());
  if (capsule == nullptr && PyErr_ExceptionMatches(PyExc_TypeError)) {  // a producer of DLPack 0.x
    PyErr_Clear();
    capsule = PyObject_Call(method.get(), none.get(), options(false).get());
  }
  return Object::Steal(capsule);
}

// By `__dlpack_device__`; host memory where an object has none.
Device DeviceByName(PyObject* object, const char* field) {
  PyObject* pair = PyObject_CallMethod(object, "__dlpack_device__", nullptr);
  dlpack::Device device{dlpack::kCpu, 0};
  if (pair != nullptr && PyTuple_Check(pair) && PyTuple_Size(pair) == 2) {
    device = {static_cast<std::int32_t>(PyLong_AsLong(PyTuple_GetItem(pair, 0))),
              static_cast<std::int32_t>(PyLong_AsLong(PyTuple_GetItem(pair, 1)))};
  }
  Py_XDECREF(pair);
  PyErr_Clear();
  return DeviceOf(device, field);
}

TensorView ViewByDLPack(PyObject* object, const TensorType& type, const char* field, Access access, Holder& holder,
                        bool detached = false) {
  const Place& place = holder.Meet(DeviceByName(object, field), field, type);
  Object capsule;
  try {
    capsule = CapsuleOf(object, place);
  } catch (const PythonError&) {
    const std::string why = TakeErrorText();
    if (!detached && RequiresGrad(object)) {
      Object plain = Detached(object);
      const TensorView view = ViewByDLPack(plain.get(), type, field, access, holder, true);
      holder.Keep(std::move(plain));
      return view;
    }
    throw Error(field, TypeName(object) + " (" + why + ")", "a tensor that exports DLPack");
  }
  const dlpack::Tensor* tensor = nullptr;
  if (PyCapsule_IsValid(capsule.get(), "dltensor_versioned")) {
    const auto* managed =
        static_cast<dlpack::ManagedVersioned*>(PyCapsule_GetPointer(capsule.get(), "dltensor_versioned"));
    if (managed->version.major != dlpack::kMajorVersion) {
      throw Error(field, "DLPack version " + std::to_string(managed->version.major), "version 1, or the old protocol");
    }
    if (access == Access::kWrite && (managed->flags & dlpack::kReadOnlyFlag) != 0) {
      throw Error(field, TypeName(object) + ", which is read-only", "a tensor that may be written to");
    }
    tensor = &managed->tensor;
  } else if (PyCapsule_IsValid(capsule.get(), "dltensor")) {
    tensor = &static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule.get(), "dltensor"))->tensor;
  } else {
    throw Error(field, TypeName(object), "a capsule from __dlpack__");
  }
  const TensorView view = DlpackView(*tensor, field);
  holder.Keep(std::move(capsule));  // not renamed, so that its own destructor frees the tensor after the call
  return view;
}

}  // namespace

Holder::~Holder() {
  for (int i = 0; i < buffer_count_; ++i) PyBuffer_Release(&buffers_[static_cast<std::size_t>(i)]);
}

std::int32_t* Holder::NewTable(std::size_t entries) {
  tables_.emplace_back(entries > 0 ? entries : 1);
  return tables_.back().data();
}

const Place& Holder::Meet(Device device, const char* field, const TensorType& type) {
  if (place_.field == nullptr) {
    place_ = {device, field, device.type == DeviceType::kCuda ? StreamOf(type, device.index) : Stream{}};
  } else if (device != place_.device) {
    throw Error(field, "a tensor in " + NameOf(device),
                "a tensor in " + NameOf(place_.device) + ", as " + place_.field + ": copy it there first");
  }
  return place_;
}

TensorView ViewOf(PyObject* object, const char* field, Access access, Holder& holder) {
  const TensorType type = TensorTypeOf(object);
  switch (type.route) {
    case Route::kTable: {
      const TensorView view = ViewByTable(object, *type.api, field, holder);
      holder.Meet(view.device, field, type);
      return WithAddress(view);
    }
    case Route::kBuffer:
      holder.Meet({}, field, type);
      return WithAddress(ViewOfBuffer(object, type.numpy, field, access, holder));
    case Route::kDLPack:
      return WithAddress(ViewByDLPack(object, type, field, access, holder));
    case Route::kNone:
      break;
  }
  throw UsageError(field, TypeName(object), "a tensor: a NumPy array, a torch tensor, or an object with __dlpack__");
}

TensorView TableOf(PyObject* object, const char* field, Holder& holder) {
  if (!PyList_Check(object) && !PyTuple_Check(object)) return ViewOf(object, field, Access::kRead, holder);
  if (holder.place().device.type != DeviceType::kCpu) {
    throw Error(field, "a list, which lies in host memory",
                "an int32 tensor on " + NameOf(holder.place().device) + ", as " + holder.place().field);
  }
  const Object items = Object::Steal(PySequence_Fast(object, "a list"));
  const Py_ssize_t n = PySequence_Fast_GET_SIZE(items.get());
  std::int32_t* table = holder.NewTable(static_cast<std::size_t>(n));
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* item = PySequence_Fast_GET_ITEM(items.get(), i);
    const std::string place = std::string(field) + "[" + std::to_string(i) + "]";
    if (!PyIndex_Check(item)) throw UsageError(place, TypeName(item), "a whole number");
    const Object number = Object::Steal(PyNumber_Index(item));
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(number.get(), &overflow);
    if (overflow != 0 || value < std::numeric_limits<std::int32_t>::min() ||
        value > std::numeric_limits<std::int32_t>::max()) {
      throw Error(place, overflow != 0 ? "a number beyond 64 bits" : std::to_string(value), "a number of 32 bits");
    }
    table[i] = static_cast<std::int32_t>(value);
  }
  return TensorView::Contiguous(table, DType::kI32, {static_cast<std::int64_t>(n)});
}

DType DTypeOf(PyObject* object, const char* field) {
  struct Word {
    std::string_view text;
    DType type;
  };
  static constexpr Word kWords[] = {
      {"f32", DType::kF32},         {"float32", DType::kF32},        {"float", DType::kF32},
      {"f16", DType::kF16},         {"float16", DType::kF16},        {"half", DType::kF16},
      {"bf16", DType::kBF16},       {"bfloat16", DType::kBF16},      {"f8e4m3", DType::kF8E4M3},
      {"float8_e4m3fn", DType::kF8E4M3}, {"f8e5m2", DType::kF8E5M2}, {"float8_e5m2", DType::kF8E5M2},
  };
  Object name;
  if (PyUnicode_Check(object)) {
    name = Object::Share(object);
  } else {
    for (const char* attribute : {"name", "__name__"}) {
      PyObject* found = name ? nullptr : PyObject_GetAttrString(object, attribute);
      PyErr_Clear();
      if (found != nullptr) name = Object::Steal(found);
    }
    if (!name || !PyUnicode_Check(name.get())) name = Object::Steal(PyObject_Str(object));  // "torch.bfloat16"
  }
  const char* text = PyUnicode_AsUTF8(name.get());
  if (text == nullptr) throw PythonError();
  std::string_view word = text;
  if (word.starts_with("torch.")) word.remove_prefix(6);
  for (const Word& known : kWords) {
    if (known.text == word) return known.type;
  }
  throw UsageError(field, std::string(word), "f32, f16 or bf16, or a dtype of NumPy, torch or ml_dtypes of that name");
}

}  // namespace regard::python
