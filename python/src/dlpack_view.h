// DLPack's tensors as regard's views.
#pragma once

#include "python/src/dlpack_abi.h"
#include "regard/tensor.h"

namespace regard::python {

// What an argument may hold, for errors.
inline constexpr const char* kTypesTaken =
    "f32, f16, bf16, f8e4m3 or f8e5m2 values, int32 indices, or a bool or uint8 mask (int64 indices: convert them once, "
    ".astype(\"int32\") or .to(torch.int32))";

dlpack::DataType CodeOf(DType dtype);
// Throws Error{field} for a type or a device that regard does not take.
TensorView DlpackView(const dlpack::Tensor& tensor, const char* field);
// A null address stands for "absent"; an empty tensor of a library may have one all the same.
TensorView WithAddress(TensorView view);

}  // namespace regard::python
