// DLPack <-> TensorView. An exported tensor is one heap object that holds a share of the memory, the shape and the
// strides; its deleter deletes the object.

#include "regard/dlpack.h"

#include <array>
#include <memory>
#include <string>

#include "regard/status.h"

namespace regard {
namespace {

struct TypeCode {
  DType dtype;
  std::uint8_t code, bits;
};

constexpr TypeCode kTypeCodes[] = {
    {DType::kF32, kDLFloat, 32},         {DType::kF16, kDLFloat, 16},         {DType::kBF16, kDLBfloat, 16},
    {DType::kF8E4M3, kDLPackCodeF8E4M3, 8}, {DType::kF8E5M2, kDLPackCodeF8E5M2, 8}, {DType::kI32, kDLInt, 32},
    {DType::kU8, kDLUInt, 8},            {DType::kBool, kDLPackCodeBool, 8},
};

DType TypeOf(DLDataType type) {
  if (type.lanes != 1) throw Error("lanes", std::to_string(type.lanes), "1");
  for (const TypeCode& known : kTypeCodes) {
    if (known.code == type.code && known.bits == type.bits) return known.dtype;
  }
  throw Error("dtype", "DLPack code " + std::to_string(type.code) + " with " + std::to_string(type.bits) + " bits",
              "a type of regard: f32, f16, bf16, f8e4m3 (code 10), f8e5m2 (code 12), i32, u8 or bool (code 6)");
}

Device DeviceOf(const DLDevice& device) {
  switch (static_cast<int>(device.device_type)) {
    case kDLCPU:
    case kDLCUDAHost:  // pinned host memory
      return {DeviceType::kCpu, 0};
    case kDLCUDA:
    case kDLCUDAManaged:
      return {DeviceType::kCuda, device.device_id};
    case kDLOpenCL:
      return {DeviceType::kOpenCl, device.device_id};
    default:
      throw Error("device_type", std::to_string(static_cast<int>(device.device_type)),
                  "1 (CPU), 2 (CUDA), 3 (CUDA host), 4 (OpenCL) or 13 (CUDA managed)");
  }
}

DLDevice DeviceFor(const Device& device) {
  switch (device.type) {
    case DeviceType::kCuda:
      return {kDLCUDA, device.index};
    case DeviceType::kOpenCl:
      return {kDLOpenCL, device.index};
    case DeviceType::kCpu:
      break;
  }
  return {kDLCPU, 0};
}

// What a DLManagedTensor of ours lives in.
struct Export {
  OwnedTensor tensor;
  std::array<std::int64_t, TensorView::kMaxRank> shape{}, stride{};
  DLManagedTensor managed{};
};

void Delete(DLManagedTensor* managed) { delete static_cast<Export*>(managed->manager_ctx); }

}  // namespace

TensorView FromDLPack(const DLTensor& tensor) {
  TensorView view;
  view.device = DeviceOf(tensor.device);
  view.dtype = TypeOf(tensor.dtype);
  if (tensor.ndim < 0 || tensor.ndim > TensorView::kMaxRank) {
    throw Error("ndim", std::to_string(tensor.ndim), "0 to " + std::to_string(TensorView::kMaxRank));
  }
  view.rank = tensor.ndim;
  if (view.rank > 0 && tensor.shape == nullptr) throw Error("shape", "null", "ndim extents");
  std::int64_t elements = 1;  // with empty dimensions counted as 1, so that the strides of the others are right
  bool empty = false;
  for (int d = view.rank - 1; d >= 0; --d) {
    const std::int64_t extent = tensor.shape[d];
    const std::string where = "dimension " + std::to_string(d) + " is " + std::to_string(extent);
    if (extent < 0) throw Error("shape", where, "no negative extent");
    view.shape[d] = extent;
    view.stride[d] = tensor.strides != nullptr ? tensor.strides[d] : elements;
    empty = empty || extent == 0;
    if (__builtin_mul_overflow(elements, extent > 0 ? extent : 1, &elements)) {
      throw Error("shape", where, "fewer than 2^63 elements");
    }
  }
  if (tensor.data == nullptr && !empty) throw Error("data", "null", "an address, since the tensor has elements");
  if (tensor.byte_offset % SizeOf(view.dtype) != 0) {
    throw Error("byte_offset", std::to_string(tensor.byte_offset),
                "a multiple of the element size " + std::to_string(SizeOf(view.dtype)));
  }
  if (view.device.type == DeviceType::kOpenCl && tensor.byte_offset != 0) {
    throw Error("byte_offset", std::to_string(tensor.byte_offset), "0 for OpenCL, whose data is a handle");
  }
  view.data = tensor.data == nullptr ? nullptr : static_cast<char*>(tensor.data) + tensor.byte_offset;
  return view;
}

DLManagedTensor* ToDLPack(const OwnedTensor& tensor) {
  if (!tensor.defined()) throw Error("tensor", "an empty OwnedTensor", "one that holds memory");
  auto owner = std::make_unique<Export>();
  const TensorView& view = tensor.view();
  owner->tensor = tensor;
  owner->shape = view.shape;
  owner->stride = view.stride;
  DLTensor& out = owner->managed.dl_tensor;
  out.data = view.data;
  out.device = DeviceFor(view.device);
  out.ndim = view.rank;
  for (const TypeCode& known : kTypeCodes) {
    if (known.dtype == view.dtype) out.dtype = {known.code, known.bits, 1};
  }
  out.shape = owner->shape.data();
  out.strides = owner->stride.data();
  out.byte_offset = 0;
  owner->managed.deleter = &Delete;
  owner->managed.manager_ctx = owner.get();
  return &owner.release()->managed;
}

}  // namespace regard
