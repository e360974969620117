// Tensors of any library as views, without copies, and results in the library of the caller's tensors.
//
// Three ways in, tried in this order and remembered for each type: the table of C functions of DLPack 1.2 and newer
// (`__dlpack_c_exchange_api__`, which torch publishes), the buffer protocol (NumPy; arrays of ml_dtypes through a view of
// their bits), and `__dlpack__`. What keeps the memory alive during a call is held by a Holder.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "python/src/dlpack_abi.h"
#include "python/src/object.h"
#include "python/src/place.h"
#include "regard/attention.h"

namespace regard::python {

// What a call borrows from Python; dropped with the GIL held.
class Holder {
 public:
  Holder() = default;
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;
  ~Holder();
  // The caller fills it with PyObject_GetBuffer; Undo where that failed.
  Py_buffer* NewBuffer() { return &buffers_[buffer_count_++]; }
  void UndoBuffer() { --buffer_count_; }
  void Keep(Object object) { objects_.push_back(std::move(object)); }
  // Room for index tensors made from Python lists.
  std::int32_t* NewTable(std::size_t entries);
  // Called with every tensor's device: the first one sets the place. Throws Error{field} for a tensor elsewhere.
  const Place& Meet(Device device, const char* field, const TensorType& type);
  const Place& place() const { return place_; }

 private:
  static constexpr int kMostTensors = 48;  // more than any call has arguments
  std::array<Py_buffer, kMostTensors> buffers_;
  int buffer_count_ = 0;
  std::vector<Object> objects_;
  std::vector<std::vector<std::int32_t>> tables_;
  Place place_;
};

enum class Access { kRead, kWrite };

// The view of a tensor argument. Throws Error{field} for a type, a device or an element type that regard does not take, and
// for a tensor that is not where the others of the call are.
TensorView ViewOf(PyObject* object, const char* field, Access access, Holder& holder);
// The same, and lists or tuples of whole numbers as contiguous i32.
TensorView TableOf(PyObject* object, const char* field, Holder& holder);

// A new tensor in the library of `like`, where the call's tensors lie: written through view() first, then handed out. On a
// GPU torch's come from its caching allocator, in the order of the call's stream; those of a library that cannot make any
// by itself are memory of regard's.
class NewTensor {
 public:
  // `field` names what is made in errors.
  NewTensor(PyObject* like, DType dtype, std::span<const std::int64_t> shape, const char* field, Holder& holder);
  const TensorView& view() const { return view_; }
  Object Finish();  // once

 private:
  void MakeNumpy(const char* field, Holder& holder);
  void MakeByTable(const dlpack::ExchangeApi& api, const char* field);
  void MakeTorch(PyObject* like, const char* field, Holder& holder);
  void MakeOwned(PyObject* like);

  TensorView view_;
  Object object_;       // absent: `owned_`, which Finish hands to the library
  Object like_;
  OwnedTensor owned_;
  Place place_;
};

// The class that hands out memory of regard's on a GPU: called with (array, device index, stream).
void SetDeviceArrayType(PyObject* type);

// A dtype as a Python caller names it: "bf16", "bfloat16", numpy.float32, numpy.dtype, torch.float16, ml_dtypes.bfloat16.
DType DTypeOf(PyObject* object, const char* field);

}  // namespace regard::python
