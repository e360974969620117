#include "python/src/dlpack_view.h"

#include <cstdint>
#include <string>

#include "python/src/place.h"
#include "regard/status.h"

namespace regard::python {
namespace {

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

}  // namespace

dlpack::DataType CodeOf(DType dtype) {
  for (const TypeCode& known : kTypeCodes) {
    if (known.dtype == dtype) return {known.code, known.bits, 1};
  }
  return {};
}

TensorView DlpackView(const dlpack::Tensor& t, const char* field) {
  TensorView view;
  view.device = DeviceOf(t.device, field);
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

TensorView WithAddress(TensorView view) {
  alignas(64) static char nowhere[64];
  if (view.data == nullptr && view.Elements() == 0) view.data = nowhere;
  return view;
}

}  // namespace regard::python
