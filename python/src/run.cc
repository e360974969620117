#include "python/src/run.h"

#include <array>
#include <cstdint>

#include "python/src/tensor_types.h"

namespace regard::python {

GpuScratch::GpuScratch(PyObject* like, std::size_t bytes, Holder& holder) {
  if (bytes == 0) return;
  const TensorType type = TensorTypeOf(like);
  if (type.route == Route::kTable || type.torch) {
    const std::array<std::int64_t, 1> shape = {static_cast<std::int64_t>(bytes)};
    tensor_.emplace(like, DType::kU8, shape, "workspace", holder);
    workspace_ = {tensor_->view().data, bytes};
    return;
  }
  const Place& place = holder.place();
  buffer_.emplace(place.device.index, bytes, place.stream);
  workspace_ = {buffer_->data(), bytes};
}

}  // namespace regard::python
