// Decode's own vocabulary, for instruction sets that have it (simd/avx512_units.h, simd/avx2_units.h); all others take
// the general way of tile/direct.h, which needs nothing but the vector contract.
#pragma once

#include "src/cpu/tile/math.h"

namespace regard::cpu::REGARD_ISA {

inline constexpr int kUnitDwords = 16;  // of a row at a time: a line of 64 bytes

template <class M, Elem T>
struct KeyUnit {
  static constexpr int kSteps = 0, kVectors = 2;
  static constexpr float kQueryScale = 1.0f;
};
template <class M, Elem T>
struct ValueUnit {
  static constexpr int kColumns = 0, kKeys = kPanelKeys;
  static constexpr bool kNatural = true;
};

struct NoConverter {};
struct NaturalColumns {
  static constexpr bool kNatural = true;
  using Converter = NoConverter;
};

}  // namespace regard::cpu::REGARD_ISA

#ifdef REGARD_UNITS
#include REGARD_UNITS
#endif
