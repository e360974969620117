// Fixed-width names and element types of the CUDA kernels. No header of any toolkit or C library is included, so that a
// bare NVRTC compiles it; the same text compiles for the host, where the emulator runs the kernels.
#pragma once

#include "base/clang.h"

#if defined(__CUDACC__) || defined(__CUDA__)
#define REGARD_BOTH __host__ __device__
#define REGARD_DEVICE __device__ __forceinline__
#define REGARD_COLD static __device__ __noinline__
#define REGARD_UNROLL _Pragma("unroll")
#define REGARD_ROLLED _Pragma("unroll 1")
#define REGARD_BY_FOUR _Pragma("unroll 4")
#else
#define REGARD_BOTH
#define REGARD_DEVICE inline
#define REGARD_COLD inline
#define REGARD_UNROLL
#define REGARD_ROLLED
#define REGARD_BY_FOUR
#endif

namespace regard::cuda {

using i8 = signed char;
using u8 = unsigned char;
using i16 = short;
using u16 = unsigned short;
using i32 = int;
using u32 = unsigned int;
using i64 = long long;
using u64 = unsigned long long;
static_assert(sizeof(i16) == 2 && sizeof(i32) == 4 && sizeof(i64) == 8 && sizeof(float) == 4);

// Bits of the small float types (src/core: regard/dtype.h says which formats they are). Arithmetic is done in f32.
struct F16 {
  u16 bits;
};
struct BF16 {
  u16 bits;
};
struct E4M3 {
  u8 bits;
};
struct E5M2 {
  u8 bits;
};

// Element types in the order of regard::DType.
enum class Element : int { kF32, kF16, kBF16, kE4M3, kE5M2 };

REGARD_BOTH constexpr int SizeOf(Element e) {
  return e == Element::kF32 ? 4 : e == Element::kF16 || e == Element::kBF16 ? 2 : 1;
}

// 16 bytes that travel as one.
struct alignas(16) Vec16 {
  u32 word[4];
};

template <class T>
REGARD_BOTH constexpr T Min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
REGARD_BOTH constexpr T Max(T a, T b) {
  return a < b ? b : a;
}
REGARD_BOTH constexpr i64 CeilDiv(i64 a, i64 b) { return (a + b - 1) / b; }  // a >= 0, b > 0

}  // namespace regard::cuda
