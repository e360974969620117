// The 512-bit register type of the AVX-512 probe loops. Included by probe_avx512*.cc alone; in an anonymous namespace,
// so that each object has its own (probe_loops.h).
#pragma once

#include <immintrin.h>

#include "src/cpu/probe/probe_loops.h"

namespace regard::probe {
namespace {

struct Vec {
  using Reg = __m512;
  static constexpr int kLanes = 16, kChains = 24;  // 2 pipes x latency up to 6 twice over, of 32 registers
  static Reg Set(float x) { return _mm512_set1_ps(x); }
  static Reg MulAdd(Reg acc, Reg a, Reg b) { return _mm512_fmadd_ps(acc, a, b); }
  using Bits = __m512i;
  static Bits Zero() { return _mm512_setzero_si512(); }
  static Bits XorLoad(Bits acc, const std::byte* p) { return _mm512_xor_si512(acc, _mm512_loadu_si512(p)); }
  static std::uint64_t Fold(Bits b) {
    alignas(64) std::uint64_t words[8];
    _mm512_store_si512(words, b);
    std::uint64_t sum = 0;
    for (const std::uint64_t word : words) sum ^= word;
    return sum;
  }
};

}  // namespace
}  // namespace regard::probe
