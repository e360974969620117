// Probe loops for AVX-512 with BF16: those of AVX-512, and the dot product of bf16 pairs (vdpbf16ps).
#include "src/cpu/probe/probe_vec512.h"

namespace regard::probe {
namespace {

// acc += a0 * b0 + a1 * b1 in each f32 lane; with a1 = -a0 and b0 = b1 the sums stay where they are.
double DotLoop(std::int64_t steps) {
  constexpr int kUnroll = 4, kFlopsPerLane = 4;
  constexpr std::uint32_t kPlusMinusOne = 0xbf803f80, kQuarters = 0x3e803e80;
  Chains<Vec, Vec::kChains> chains(Vec::Set(0.75f));
  __m512i a = _mm512_set1_epi32(static_cast<int>(kPlusMinusOne)), b = _mm512_set1_epi32(static_cast<int>(kQuarters));
  REGARD_PROBE_KEEP(a);
  REGARD_PROBE_KEEP(b);
  for (std::int64_t step = 0; step < steps; ++step) {
    for (int u = 0; u < kUnroll; ++u) {
      chains.Round([&](__m512 acc) {
        return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
      });
    }
    chains.Keep();
  }
  return static_cast<double>(steps) * kUnroll * Vec::kChains * Vec::kLanes * kFlopsPerLane;
}

constexpr ProbeTable kTable = {Isa::kAvx512Bf16, Vec::kLanes,          FmaLoop<Vec>,
                               DotLoop,          ReadStreamsLoop<Vec>, ReadChunksLoop<Vec>};

}  // namespace

const ProbeTable& Avx512Bf16Probes() noexcept {
  return kTable;
}

}  // namespace regard::probe
