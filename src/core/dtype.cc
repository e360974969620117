// Element types and scalar conversions, by integer arithmetic only: the results do not depend on the floating-point
// mode of the calling thread (rounding, flush-to-zero).
//
// A small format with E exponent bits, M mantissa bits and bias b stands for
//   normal    (-1)^s * 2^(e-b) * (1 + m / 2^M),   e in [1, 2^E - 1)
//   denormal  (-1)^s * 2^(1-b) * (m / 2^M),       e = 0
// and binary32 is the same with E = 8, M = 23, b = 127.

#include "regard/dtype.h"

#include <array>
#include <bit>
#include <string>

#include "regard/status.h"
#include "src/core/suggest.h"

namespace regard {
namespace {

constexpr int kF32Bias = 127;
constexpr int kF32Mantissa = 23;
constexpr std::uint32_t kF32Sign = 0x80000000u;
constexpr std::uint32_t kF32Infinity = 0x7f800000u;
constexpr std::uint32_t kF32QuietNaN = 0x7fc00000u;
constexpr std::uint32_t kF32MantissaMask = 0x007fffffu;

constexpr std::array<std::string_view, 8> kNames = {"f32", "f16", "bf16", "f8e4m3", "f8e5m2", "i32", "u8", "bool"};

// bits >> shift, rounded to the nearest integer, ties to even. 1 <= shift <= 31.
constexpr std::uint32_t RoundedShift(std::uint32_t bits, int shift) {
  const std::uint32_t below_half = (1u << (shift - 1)) - 1u;
  const std::uint32_t odd = (bits >> shift) & 1u;
  return (bits + below_half + odd) >> shift;
}

// Exponent and mantissa bits (no sign) of |x| in the small format, `magnitude` being the bits of |x| and not NaN.
// The exponent is not capped: what lies above the format's largest value is for the caller to replace.
template <int kMantissa, int kBias>
constexpr std::uint32_t Narrow(std::uint32_t magnitude) {
  const int exponent = static_cast<int>(magnitude >> kF32Mantissa) - kF32Bias + kBias;
  const std::uint32_t mantissa = magnitude & kF32MantissaMask;
  constexpr int kShift = kF32Mantissa - kMantissa;
  if (exponent >= 1) {
    // A carry out of the mantissa raises the exponent, as it should.
    return RoundedShift((static_cast<std::uint32_t>(exponent) << kF32Mantissa) | mantissa, kShift);
  }
  // Denormal: the leading 1 is written out and moves right. Past 24 places less than half a unit is left.
  // (An f32 denormal is far below that for every small format; its missing leading 1 does not matter.)
  const int shift = kShift + 1 - exponent;
  if (shift > kF32Mantissa + 1) return 0;
  return RoundedShift(mantissa | (1u << kF32Mantissa), shift);
}

// The bits of |x| for exponent and mantissa bits of a small format that are neither infinity nor NaN.
template <int kMantissa, int kBias>
constexpr std::uint32_t Widen(std::uint32_t magnitude) {
  constexpr int kShift = kF32Mantissa - kMantissa;
  const std::uint32_t exponent = magnitude >> kMantissa;
  if (exponent > 0) return (magnitude << kShift) + (static_cast<std::uint32_t>(kF32Bias - kBias) << kF32Mantissa);
  if (magnitude == 0) return 0;
  // Denormal: m * 2^(1 - b - M); its leading 1 at bit `top` becomes the implicit one.
  const int top = std::bit_width(magnitude) - 1;
  const std::uint32_t biased = static_cast<std::uint32_t>(kF32Bias - kBias + 1 - kMantissa + top);
  return (biased << kF32Mantissa) | ((magnitude << (kF32Mantissa - top)) & kF32MantissaMask);
}

std::uint32_t SignBit(float x, int to_bit) { return (std::bit_cast<std::uint32_t>(x) >> 31) << to_bit; }
std::uint32_t Magnitude(float x) { return std::bit_cast<std::uint32_t>(x) & ~kF32Sign; }
float Signed(std::uint32_t sign, std::uint32_t magnitude) { return std::bit_cast<float>((sign << 31) | magnitude); }

}  // namespace

std::size_t SizeOf(DType t) noexcept {
  switch (t) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  return 0;
}

std::string_view Name(DType t) noexcept {
  const auto i = static_cast<std::size_t>(t);
  return i < kNames.size() ? kNames[i] : std::string_view("?");
}

DType ParseDType(std::string_view name) {
  std::string all;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<DType>(i);
    all += (i == 0 ? "" : ", ") + std::string(kNames[i]);
  }
  const std::string nearest = Nearest(name, kNames);
  const std::string hint = nearest.empty() ? "" : " (nearest: " + nearest + ")";
  throw Error("dtype", "\"" + std::string(name) + "\"", "one of " + all + hint);
}

float F16ToFloat(std::uint16_t bits) noexcept {
  const std::uint32_t magnitude = bits & 0x7fffu;
  const std::uint32_t sign = bits >> 15;
  // Infinity and NaN; a NaN keeps its payload and becomes quiet.
  if (magnitude > 0x7c00u) return Signed(sign, kF32QuietNaN | ((magnitude & 0x3ffu) << 13));
  if (magnitude == 0x7c00u) return Signed(sign, kF32Infinity);
  return Signed(sign, Widen<10, 15>(magnitude));
}

float BF16ToFloat(std::uint16_t bits) noexcept { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

float F8E4M3ToFloat(std::uint8_t bits) noexcept {
  const std::uint32_t magnitude = bits & 0x7fu;
  const std::uint32_t sign = bits >> 7;
  if (magnitude == 0x7fu) return Signed(sign, kF32QuietNaN);
  return Signed(sign, Widen<3, 7>(magnitude));
}

float F8E5M2ToFloat(std::uint8_t bits) noexcept {
  // The upper byte of binary16.
  return F16ToFloat(static_cast<std::uint16_t>(bits << 8));
}

std::uint16_t FloatToF16(float x) noexcept {
  const std::uint32_t magnitude = Magnitude(x);
  if (magnitude > kF32Infinity) return 0x7e00;
  std::uint32_t bits = Narrow<10, 15>(magnitude);
  if (bits > 0x7c00u) bits = 0x7c00u;
  return static_cast<std::uint16_t>(SignBit(x, 15) | bits);
}

std::uint16_t FloatToBF16(float x) noexcept {
  const std::uint32_t magnitude = Magnitude(x);
  if (magnitude > kF32Infinity) return 0x7fc0;
  return static_cast<std::uint16_t>(SignBit(x, 15) | RoundedShift(magnitude, 16));
}

std::uint8_t FloatToF8E4M3(float x) noexcept {
  const std::uint32_t magnitude = Magnitude(x);
  if (magnitude > kF32Infinity) return 0x7f;
  std::uint32_t bits = Narrow<3, 7>(magnitude);
  if (bits > 0x7eu) bits = 0x7eu;  // 448
  return static_cast<std::uint8_t>(SignBit(x, 7) | bits);
}

std::uint8_t FloatToF8E5M2(float x) noexcept {
  const std::uint32_t magnitude = Magnitude(x);
  if (magnitude > kF32Infinity) return 0x7e;
  std::uint32_t bits = Narrow<2, 15>(magnitude);
  if (bits > 0x7bu) bits = 0x7bu;  // 57344
  return static_cast<std::uint8_t>(SignBit(x, 7) | bits);
}

float LoadFloat(const void* data, DType t, std::int64_t i) noexcept {
  switch (t) {
    case DType::kF32:
      return static_cast<const float*>(data)[i];
    case DType::kF16:
      return F16ToFloat(static_cast<const std::uint16_t*>(data)[i]);
    case DType::kBF16:
      return BF16ToFloat(static_cast<const std::uint16_t*>(data)[i]);
    case DType::kF8E4M3:
      return F8E4M3ToFloat(static_cast<const std::uint8_t*>(data)[i]);
    case DType::kF8E5M2:
      return F8E5M2ToFloat(static_cast<const std::uint8_t*>(data)[i]);
    case DType::kI32:
    case DType::kU8:
    case DType::kBool:
      break;
  }
  return 0;
}

void StoreFloat(void* data, DType t, std::int64_t i, float x) noexcept {
  switch (t) {
    case DType::kF32:
      static_cast<float*>(data)[i] = x;
      break;
    case DType::kF16:
      static_cast<std::uint16_t*>(data)[i] = FloatToF16(x);
      break;
    case DType::kBF16:
      static_cast<std::uint16_t*>(data)[i] = FloatToBF16(x);
      break;
    case DType::kF8E4M3:
      static_cast<std::uint8_t*>(data)[i] = FloatToF8E4M3(x);
      break;
    case DType::kF8E5M2:
      static_cast<std::uint8_t*>(data)[i] = FloatToF8E5M2(x);
      break;
    case DType::kI32:
    case DType::kU8:
    case DType::kBool:
      break;
  }
}

}  // namespace regard
