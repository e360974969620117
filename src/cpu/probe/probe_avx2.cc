// Probe loops for AVX2 with FMA.
#include <immintrin.h>

#include "src/cpu/probe/probe_loops.h"

namespace regard::probe {
namespace {

struct Vec {
  using Reg = __m256;
  static constexpr int kLanes = 8, kChains = 12;  // 2 pipes x latency 4 or 5, of 16 registers
  static Reg Set(float x) { return _mm256_set1_ps(x); }
  static Reg MulAdd(Reg acc, Reg a, Reg b) { return _mm256_fmadd_ps(acc, a, b); }
  using Bits = __m256i;
  static Bits Zero() { return _mm256_setzero_si256(); }
  static Bits XorLoad(Bits acc, const std::byte* p) {
    return _mm256_xor_si256(acc, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static std::uint64_t Fold(Bits b) {
    alignas(32) std::uint64_t words[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(words), b);
    return words[0] ^ words[1] ^ words[2] ^ words[3];
  }
};

constexpr ProbeTable kTable = {Isa::kAvx2, Vec::kLanes,          FmaLoop<Vec>,
                               nullptr,    ReadStreamsLoop<Vec>, ReadChunksLoop<Vec>};

}  // namespace

const ProbeTable& Avx2Probes() noexcept {
  return kTable;
}

}  // namespace regard::probe
