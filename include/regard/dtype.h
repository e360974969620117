// Element types and exact scalar conversions between them and f32.
// f16: IEEE 754 binary16. bf16: the high half of binary32. f8e4m3: OCP FP8 E4M3 ("fn": no infinity, NaN 0x7f/0xff,
// max 448). f8e5m2: OCP FP8 E5M2 (infinity and NaN as in binary16, max 57344). Source: OCP 8-bit Floating Point
// Specification (OFP8), revision 1.0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "regard/export.h"

namespace regard {

enum class DType : std::uint8_t { kF32, kF16, kBF16, kF8E4M3, kF8E5M2, kI32, kU8, kBool };

// Bytes of one element: 4, 2, 2, 1, 1, 4, 1, 1.
REGARD_API std::size_t SizeOf(DType t) noexcept;
// "f32" "f16" "bf16" "f8e4m3" "f8e5m2" "i32" "u8" "bool".
REGARD_API std::string_view Name(DType t) noexcept;
// The inverse of Name; throws Error{"dtype"} for an unknown name.
REGARD_API DType ParseDType(std::string_view name);
inline bool IsFp8(DType t) noexcept { return t == DType::kF8E4M3 || t == DType::kF8E5M2; }
inline bool IsFloat(DType t) noexcept { return t <= DType::kF8E5M2; }

// To f32: exact for every input; NaN stays NaN.
REGARD_API float F16ToFloat(std::uint16_t bits) noexcept;
REGARD_API float BF16ToFloat(std::uint16_t bits) noexcept;
REGARD_API float F8E4M3ToFloat(std::uint8_t bits) noexcept;
REGARD_API float F8E5M2ToFloat(std::uint8_t bits) noexcept;

// From f32: round to nearest, ties to even, denormals kept, NaN becomes the canonical quiet NaN.
// f16 and bf16 overflow to infinity; fp8 saturates to the largest finite value (infinity included).
REGARD_API std::uint16_t FloatToF16(float x) noexcept;
REGARD_API std::uint16_t FloatToBF16(float x) noexcept;
REGARD_API std::uint8_t FloatToF8E4M3(float x) noexcept;
REGARD_API std::uint8_t FloatToF8E5M2(float x) noexcept;

// Element `i` of a contiguous array of floating type `t`, as f32; and the rounded store.
REGARD_API float LoadFloat(const void* data, DType t, std::int64_t i) noexcept;
REGARD_API void StoreFloat(void* data, DType t, std::int64_t i, float x) noexcept;

}  // namespace regard
