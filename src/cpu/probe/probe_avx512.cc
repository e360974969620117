// Probe loops for AVX-512.
#include "src/cpu/probe/probe_vec512.h"

namespace regard::probe {
namespace {

constexpr ProbeTable kTable = {Isa::kAvx512, Vec::kLanes,          FmaLoop<Vec>,
                               nullptr,      ReadStreamsLoop<Vec>, ReadChunksLoop<Vec>};

}  // namespace

const ProbeTable& Avx512Probes() noexcept {
  return kTable;
}

}  // namespace regard::probe
