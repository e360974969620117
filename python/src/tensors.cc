// Views of the caller's tensors and new tensors in the caller's library (tensors.h). Holds what it borrows in a Holder.
#include "python/src/tensors.h"

#include <cstring>
#include <limits>
#include <memory>
#include <string_view>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "python/src/tensor_types.h"

namespace nb = nanobind;

namespace regard::python {
namespace {

constexpr const char* kTypesTaken =
    "f32, f16, bf16, f8e4m3 or f8e5m2 values, int32 indices, or a bool or uint8 mask (int64 indices: convert them once, "
    ".astype(\"int32\") or .to(torch.int32))";

struct TypeCode {
  DType dtype;
  std::uint8_t code, bits;
};
constexpr TypeCode kTypeCodes[] = {
    {DType::kF32, dlpack::kFloat, 32},  {DType::kF16, dlpack::kFloat, 16},
    {DType::kBF16, dlpack::kBFloat, 16}, {DType::kF8E4M3, dlpack::kFloat8E4M3Fn, 8},
    {DType::kF8E5M2, dlpack::kFloat8E5M2, 8}, {DType::kI32, dlpack::kInt, 32},
    {DType::kU8, dlpack::kUInt, 8},     {DType::kBool, dlpack::kBool, 8},
};

dlpack::DataType CodeOf(DType dtype) {
  for (const TypeCode& known : kTypeCodes) {
    if (known.dtype == dtype) return {known.code, known.bits, 1};
  }
  return {};
}

std::string NameOf(dlpack::DataType t) {
  const char* kind = t.code == dlpack::kInt     ? "int"
                     : t.code == dlpack::kUInt  ? "uint"
                     : t.code == dlpack::kFloat ? "float"
                     : t.code == 5              ? "complex"
                                                : nullptr;
  std::string name = kind != nullptr ? kind + std::to_string(t.bits)
                                     : "DLPack type " + std::to_string(t.code) + " of " + std::to_string(t.bits) + " bits";
  return t.lanes == 1 ? name : name + " in " + std::to_string(t.lanes) + " lanes";
}

std::string NameOf(dlpack::Device d) {
  const char* kind = d.type == dlpack::kCuda || d.type == dlpack::kCudaManaged ? "cuda"
                     : d.type == 10                                            ? "rocm"
                     : d.type == 8                                             ? "metal"
                     : d.type == 4                                             ? "opencl"
                     : d.type == 14                                            ? "oneapi"
                                                                               : nullptr;
  return (kind != nullptr ? kind : "DLPack device " + std::to_string(d.type)) + ":" + std::to_string(d.id);
}

void RequireHost(dlpack::Device device, const char* field) {
  if (device.type == dlpack::kCpu || device.type == dlpack::kCudaHost || device.type == dlpack::kRocmHost) return;
  throw Error(field, "a tensor on " + NameOf(device), "a tensor in host memory: regard has no kernels for that device");
}

TensorView ViewOf(const dlpack::Tensor& t, const char* field) {
  RequireHost(t.device, field);
  TensorView view;
  bool known = false;
  for (const TypeCode& code : kTypeCodes) {
    if (code.code == t.dtype.code && code.bits == t.dtype.bits && t.dtype.lanes == 1) {
      view.dtype = code.dtype;
      known = true;
    }
  }
  if (!known) throw Error(field, NameOf(t.dtype), kTypesTaken);
  if (t.ndim < 0 || t.ndim > TensorView::kMaxRank) {
    throw Error(field, std::to_string(t.ndim) + " dimensions", "at most " + std::to_string(TensorView::kMaxRank));
  }
  view.rank = t.ndim;
  std::int64_t stride = 1;
  for (int d = t.ndim - 1; d >= 0; --d) {
    view.shape[static_cast<std::size_t>(d)] = t.shape[d];
    view.stride[static_cast<std::size_t>(d)] = t.strides != nullptr ? t.strides[d] : stride;
    stride *= t.shape[d] > 0 ? t.shape[d] : 1;
  }
  view.data = t.data == nullptr ? nullptr : static_cast<char*>(t.data) + t.byte_offset;
  return view;
}

// A null address stands for "absent"; an empty tensor of a library may have one all the same.
TensorView WithAddress(TensorView view) {
  alignas(64) static char nowhere[64];
  if (view.data == nullptr && view.Elements() == 0) view.data = nowhere;
  return view;
}

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
    if (api.tensor_from_object(object, &tensor) == 0) return ViewOf(tensor, field);
  } else {
    dlpack::ManagedVersioned* managed = nullptr;
    if (api.managed_from_object(object, &managed) == 0) {
      PyObject* capsule = PyCapsule_New(managed, nullptr, [](PyObject* c) {
        auto* held = static_cast<dlpack::ManagedVersioned*>(PyCapsule_GetPointer(c, nullptr));
        if (held->deleter != nullptr) held->deleter(held);
      });
      holder.Keep(Object::Steal(capsule));
      return ViewOf(managed->tensor, field);
    }
  }
  const std::string why = TakeErrorText();
  if (!detached && RequiresGrad(object)) {
    Object plain = Detached(object);
    const TensorView view = ViewByTable(plain.get(), api, field, holder, true);
    holder.Keep(std::move(plain));
    return view;
  }
  throw Error(field, TypeName(object) + " (" + why + ")", "a dense tensor in host memory");
}

// A capsule of object.__dlpack__(), of the newest protocol that it speaks.
Object CapsuleOf(PyObject* object) {
  const Object method = Object::Steal(PyObject_GetAttrString(object, "__dlpack__"));
  const Object none = Object::Steal(PyTuple_New(0));
  const Object options = Object::Steal(Py_BuildValue("{s:(ii)}", "max_version", 1, 0));
  PyObject* capsule = PyObject_Call(method.get(), none.get(), options.get());
  if (capsule == nullptr && PyErr_ExceptionMatches(PyExc_TypeError)) {  // a producer of DLPack 0.x
    PyErr_Clear();
    capsule = PyObject_Call(method.get(), none.get(), nullptr);
  }
  return Object::Steal(capsule);
}

void RequireHostByName(PyObject* object, const char* field) {
  PyObject* pair = PyObject_CallMethod(object, "__dlpack_device__", nullptr);
  dlpack::Device device{dlpack::kCpu, 0};
  if (pair != nullptr && PyTuple_Check(pair) && PyTuple_Size(pair) == 2) {
    device = {static_cast<std::int32_t>(PyLong_AsLong(PyTuple_GetItem(pair, 0))),
              static_cast<std::int32_t>(PyLong_AsLong(PyTuple_GetItem(pair, 1)))};
  }
  Py_XDECREF(pair);
  PyErr_Clear();
  RequireHost(device, field);
}

TensorView ViewByDLPack(PyObject* object, const char* field, Access access, Holder& holder, bool detached = false) {
  RequireHostByName(object, field);
  Object capsule;
  try {
    capsule = CapsuleOf(object);
  } catch (const PythonError&) {
    const std::string why = TakeErrorText();
    if (!detached && RequiresGrad(object)) {
      Object plain = Detached(object);
      const TensorView view = ViewByDLPack(plain.get(), field, access, holder, true);
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
  const TensorView view = ViewOf(*tensor, field);
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

TensorView ViewOf(PyObject* object, const char* field, Access access, Holder& holder) {
  const TensorType type = TensorTypeOf(object);
  switch (type.route) {
    case Route::kTable:
      return WithAddress(ViewByTable(object, *type.api, field, holder));
    case Route::kBuffer:
      return WithAddress(ViewOfBuffer(object, type.numpy, field, access, holder));
    case Route::kDLPack:
      return WithAddress(ViewByDLPack(object, field, access, holder));
    case Route::kNone:
      break;
  }
  throw UsageError(field, TypeName(object), "a tensor: a NumPy array, a torch tensor, or an object with __dlpack__");
}

TensorView TableOf(PyObject* object, const char* field, Holder& holder) {
  if (!PyList_Check(object) && !PyTuple_Check(object)) return ViewOf(object, field, Access::kRead, holder);
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

NewTensor::NewTensor(PyObject* like, DType dtype, std::span<const std::int64_t> shape, const char* field,
                     Holder& holder) {
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
    MakeTorch(field, holder);
  } else {
    MakeOwned(like);
  }
}

void NewTensor::MakeOwned(PyObject* like) {
  like_ = Object::Share(like);
  const auto& s = view_.shape;
  switch (view_.rank) {
    case 1: owned_ = OwnedTensor(view_.dtype, {s[0]}); break;
    case 2: owned_ = OwnedTensor(view_.dtype, {s[0], s[1]}); break;
    case 3: owned_ = OwnedTensor(view_.dtype, {s[0], s[1], s[2]}); break;
    default: owned_ = OwnedTensor(view_.dtype, {s[0], s[1], s[2], s[3]}); break;
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
  view_ = WithAddress(ViewOfBuffer(object_.get(), true, field, Access::kWrite, holder));
}

void NewTensor::MakeByTable(const dlpack::ExchangeApi& api, const char* field) {
  dlpack::Tensor prototype{};
  prototype.device = {dlpack::kCpu, 0};
  prototype.ndim = view_.rank;
  prototype.dtype = CodeOf(view_.dtype);
  prototype.shape = view_.shape.data();
  std::string why;
  dlpack::ManagedVersioned* managed = nullptr;
  const auto note = [](void* context, const char*, const char* message) {
    *static_cast<std::string*>(context) = message;
  };
  if (api.allocate(&prototype, &managed, &why, note) != 0) throw Error(field, why, "free memory for the result");
  view_ = WithAddress(ViewOf(managed->tensor, field));
  void* object = nullptr;
  if (api.object_from_managed(managed, &object) != 0) throw PythonError();
  object_ = Object::Steal(static_cast<PyObject*>(object));
}

// For a torch older than the table of C functions.
void NewTensor::MakeTorch(const char* field, Holder& holder) {
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
  const Object named = Object::Steal(Py_BuildValue("{s:O}", "dtype", dtype.get()));
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
  const nb::ndarray<nb::array_api> array(view_.data, static_cast<std::size_t>(view_.rank), shape, owner, nullptr,
                            nb::dlpack::dtype{code.code, code.bits, code.lanes});
  Object exported = Object::Steal(nb::cast(array).release().ptr());
  PyObject* space = PyObject_CallMethod(like_.get(), "__array_namespace__", nullptr);
  if (space == nullptr) {
    PyErr_Clear();
    return exported;
  }
  const Object owned_space = Object::Steal(space);
  return Object::Steal(PyObject_CallMethod(space, "from_dlpack", "O", exported.get()));
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
