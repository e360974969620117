// Probe loops for NEON (AArch64).
#include <arm_neon.h>

#include "src/cpu/probe/probe_loops.h"

namespace regard::probe {
namespace {

struct Vec {
  using Reg = float32x4_t;
  static constexpr int kLanes = 4, kChains = 24;  // up to 4 pipes x latency 4, of 32 registers
  static Reg Set(float x) { return vdupq_n_f32(x); }
  // The accumulator is the addend, as in kernels: it grows by 1/16 a step and stays a normal number.
  static Reg MulAdd(Reg acc, Reg a, Reg b) { return vfmaq_f32(acc, a, b); }
  using Bits = uint64x2_t;
  static Bits Zero() { return vdupq_n_u64(0); }
  static Bits XorLoad(Bits acc, const std::byte* p) {
    return veorq_u64(acc, vreinterpretq_u64_u8(vld1q_u8(reinterpret_cast<const std::uint8_t*>(p))));
  }
  static std::uint64_t Fold(Bits b) { return vgetq_lane_u64(b, 0) ^ vgetq_lane_u64(b, 1); }
};

constexpr ProbeTable kTable = {Isa::kNeon, Vec::kLanes,          FmaLoop<Vec>,
                               nullptr,    ReadStreamsLoop<Vec>, ReadChunksLoop<Vec>};

}  // namespace

const ProbeTable& NeonProbes() noexcept {
  return kTable;
}

}  // namespace regard::probe
