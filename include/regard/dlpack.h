// DLPack exchange: any tensor library's memory as a TensorView, and regard's memory for any tensor library.
// Not part of regard.h, since it needs <dlpack/dlpack.h> (any version: only the parts that 0.6 and 1.x share are used).
#pragma once

#include <dlpack/dlpack.h>

#include <cstdint>

#include "regard/attention.h"
#include "regard/export.h"
#include "regard/tensor.h"

namespace regard {

// Type codes that DLPack 1.x adds to the 0.6 header. Source: dlpack.h of DLPack 1.1, enum DLDataTypeCode
// (kDLBool, kDLFloat8_e4m3fn, kDLFloat8_e5m2).
inline constexpr std::uint8_t kDLPackCodeBool = 6;
inline constexpr std::uint8_t kDLPackCodeF8E4M3 = 10;
inline constexpr std::uint8_t kDLPackCodeF8E5M2 = 12;

// A view of `tensor`'s memory, which must outlive the view. Absent strides mean row-major. Throws Error naming the
// field: "device_type", "ndim", "shape", "dtype", "lanes", "byte_offset", "data".
REGARD_API TensorView FromDLPack(const DLTensor& tensor);

// Shares ownership of the memory: it lives until the deleter is called and no OwnedTensor copy is left. The receiver
// calls `result->deleter(result)` once. Throws Error{"tensor"} if `tensor` holds nothing.
REGARD_API DLManagedTensor* ToDLPack(const OwnedTensor& tensor);

}  // namespace regard
