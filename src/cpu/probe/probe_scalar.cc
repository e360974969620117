// Probe loops in the compiler's baseline instructions (SSE2 on x86-64), which the scalar kernels are compiled to as
// well. Without an FMA the roof is that of multiplications and additions side by side.
#include "src/cpu/probe/probe_loops.h"

namespace regard::probe {
namespace {

typedef float Float4 __attribute__((vector_size(16)));
typedef std::uint64_t Word2 __attribute__((vector_size(16)));

struct Vec {
  using Bits = Word2;
  static Bits Zero() { return Bits{0, 0}; }
  static Bits XorLoad(Bits acc, const std::byte* p) {
    Bits loaded;
    std::memcpy(&loaded, p, sizeof loaded);
    return acc ^ loaded;
  }
  static std::uint64_t Fold(Bits b) { return b[0] ^ b[1]; }
};

// A multiplication and an addition of two chains, side by side in that order: KEEP is also a fence for the scheduler.
struct PairOf {
  struct Reg {
    Float4 product, sum;
  };
};

double MulAndAdd(std::int64_t steps) {
  constexpr int kUnroll = 4, kChains = 6, kLanes = 4;
  const Float4 start = {0.75f, 0.75f, 0.75f, 0.75f};
  Chains<PairOf, kChains> chains({start, start});
  Float4 factor = {1, 1, 1, 1}, term = {0.0625f, 0.0625f, 0.0625f, 0.0625f};
  REGARD_PROBE_KEEP(factor);
  REGARD_PROBE_KEEP(term);
  for (std::int64_t step = 0; step < steps; ++step) {
    for (int u = 0; u < kUnroll; ++u) {
      chains.Round([&](PairOf::Reg acc) {
        acc.product *= factor;
        REGARD_PROBE_KEEP(acc.product);
        acc.sum += term;
        REGARD_PROBE_KEEP(acc.sum);
        return acc;
      });
    }
  }
  return static_cast<double>(steps) * kUnroll * kChains * kLanes * 2;
}

constexpr ProbeTable kTable = {Isa::kScalar, 4, MulAndAdd, nullptr, ReadStreamsLoop<Vec>, ReadChunksLoop<Vec>};

}  // namespace

const ProbeTable& ScalarProbes() noexcept {
  return kTable;
}

}  // namespace regard::probe
