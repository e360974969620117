// TensorView (a view owns nothing) and OwnedTensor (shares ownership of one aligned buffer among its copies).

#include "regard/tensor.h"

#include <limits>
#include <new>

#include "regard/attention.h"
#include "regard/status.h"
#include "src/cuda/allocate.h"

namespace regard {
namespace {

constexpr std::align_val_t kAlignment{64};  // a cache line, and the widest vector

std::string ShapeText(std::initializer_list<std::int64_t> shape) {
  std::string text = "(";
  for (const std::int64_t extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + ")";
}

}  // namespace

TensorView TensorView::Contiguous(void* data, DType dtype, std::initializer_list<std::int64_t> shape) {
  if (shape.size() > static_cast<std::size_t>(kMaxRank)) {
    throw Error("rank", std::to_string(shape.size()), "at most " + std::to_string(kMaxRank));
  }
  TensorView view;
  view.data = data;
  view.dtype = dtype;
  view.rank = static_cast<int>(shape.size());
  int d = 0;
  for (const std::int64_t extent : shape) {
    if (extent < 0) throw Error("shape", ShapeText(shape), "no negative extent");
    view.shape[d++] = extent;
  }
  std::int64_t stride = 1;
  for (d = view.rank - 1; d >= 0; --d) {
    view.stride[d] = stride;
    const std::int64_t extent = view.shape[d] > 0 ? view.shape[d] : 1;
    if (__builtin_mul_overflow(stride, extent, &stride)) {
      throw Error("shape", ShapeText(shape), "fewer than 2^63 elements");
    }
  }
  return view;
}

std::int64_t TensorView::Elements() const noexcept {
  std::int64_t elements = 1;
  for (int d = 0; d < rank; ++d) elements *= shape[d];
  return elements;
}

bool TensorView::IsContiguous() const noexcept {
  std::int64_t expected = 1;
  bool packed = true;
  for (int d = rank - 1; d >= 0; --d) {
    if (shape[d] == 0) return true;
    if (shape[d] == 1) continue;
    packed = packed && stride[d] == expected;
    expected *= shape[d];
  }
  return packed;
}

std::string TensorView::Describe() const {
  std::string text(Name(dtype));
  text += " (";
  if (rank < 0 || rank > kMaxRank) return text + "rank " + std::to_string(rank) + ")";
  for (int d = 0; d < rank; ++d) text += (d > 0 ? ", " : "") + std::to_string(shape[d]);
  return text + ")";
}

OwnedTensor::OwnedTensor(DType dtype, std::initializer_list<std::int64_t> shape, Device device)
    : view_(TensorView::Contiguous(nullptr, dtype, shape)) {
  const auto elements = static_cast<std::uint64_t>(view_.Elements());
  if (elements > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / SizeOf(dtype)) {
    throw Error("shape", ShapeText(shape), "fewer than 2^63 bytes");
  }
  // An empty tensor has an address too: a null one stands for "absent".
  const std::size_t bytes = elements == 0 ? 1 : elements * SizeOf(dtype);
  view_.device = device;
  if (device.type == DeviceType::kCuda) {
    memory_ = cuda::Allocate(device.index, bytes);
    view_.data = memory_.get();
    return;
  }
  if (device.type != DeviceType::kCpu) throw Error("device", "opencl", "cpu or cuda");
  memory_ = std::shared_ptr<void>(::operator new(bytes, kAlignment), [](void* p) { ::operator delete(p, kAlignment); });
  view_.data = memory_.get();
}

}  // namespace regard
