// Every CPU kernel, best first: the widest instruction set's rows, then the next. Adding a row is the whole registration.
//
// All three phases of one instruction set and type share a numerics id: they run the same chains over the same blocks
// and splits (src/cpu/params.h), so a row's bits do not depend on the phase. chain1: one product per step of the dot
// product; chain2: two (bf16 pairs).
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "src/backend/kernel_info.h"
#include "src/backend/work.h"
#include "src/cpu/backward.h"
#include "src/cpu/forward.h"
#include "src/problem/extent.h"
#include "src/problem/phase.h"

namespace regard {
namespace {

using cpu::BackwardConfig;
using cpu::CpuConfig;

bool TypeMatches(const char* type, DType t) { return type == std::string_view(IsFp8(t) ? "f8" : Name(t)); }

// The instruction set and the type of q.
Verdict SupportsTypes(Isa isa, const char* type, const Problem& p, const DeviceCaps& caps) {
  if (!caps.Has(isa)) {  // a GPU has none
    if (caps.gpu) return RejectGpu();
    return Reject("isa", Name(caps.Best()), Name(isa)).Remedy("runs where the CPU has ", Name(isa));
  }
  if (!TypeMatches(type, p.dtype)) {
    return Reject("dtype", Name(p.dtype), type).Remedy("the row of that type takes it");
  }
  return Accept();
}

Verdict BackwardSupports(const BackwardConfig& c, const Problem& p, const DeviceCaps& caps) {
  const Verdict verdict = SupportsTypes(c.isa, c.type, p, caps);
  if (!verdict.accepted) return verdict;
  if (p.phase != Phase::kBackward) {
    return Reject("phase", "forward", "backward").Remedy("none needed: the forward kernels take it");
  }
  return Accept();
}

Verdict Supports(const CpuConfig& c, const Problem& p, const DeviceCaps& caps) {
  const Verdict verdict = SupportsTypes(c.isa, c.type, p, caps);
  if (!verdict.accepted) return verdict;
  if (p.phase == Phase::kBackward) {
    return Reject("phase", "backward", "a forward phase").Remedy("the backward kernels and the reference take it");
  }
  if (c.pairs && p.qv && IsFp8(p.kv_dtype)) {
    return Reject("qv", "with an fp8 cache", "k and v in q's type").Remedy("the f32-product kernels (avx512) take it");
  }
  const bool is_short = p.seq_q <= kMaxDecodeQueries;
  if (c.phase == Phase::kMixed && p.phase != Phase::kMixed) {
    return Reject("phase", p.phase == Phase::kDecode ? "decode" : "prefill", "mixed")
        .Remedy("none needed: the kernels of that phase have the same bits");
  }
  if (c.phase != Phase::kMixed && p.phase == Phase::kMixed) {
    return Reject("phase", "mixed", c.phase == Phase::kDecode ? "decode" : "prefill")
        .Remedy("none needed: the mixed kernel runs both in one call");
  }
  if (c.phase == Phase::kPrefill && is_short) {
    return Reject("seq_q", p.seq_q, ">= 16").Remedy("none needed: decode is the faster kernel here");
  }
  if (c.phase == Phase::kDecode && !is_short) {
    return Reject("seq_q", p.seq_q, "< 16").Remedy("prefill kernels take longer queries");
  }
  return Accept();
}

// Rough shares of the best instruction set's f32 rate; only explain and the reference's "times slower" use them.
double Rate(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16: return 1.4;
    case Isa::kAvx512: return 0.8;
    case Isa::kAvx2: return 0.5;
    case Isa::kNeon: return 0.8;
    case Isa::kScalar: return 0.05;
  }
  return 0.05;
}

// What the random words of dropout cost for each visible pair and query head, as f32 operations at the machine's full
// rate. Measured on Zen 4, prefill, d=64, beside the roof of the same run: AVX-512 66 to 90, AVX2 133 to 152, scalar
// about 450. NEON is a guess: its registers hold half of AVX2's words, and its cores' rate is about half as well.
double DropoutFlops(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16:
    case Isa::kAvx512: return 70;
    case Isa::kAvx2:
    case Isa::kNeon: return 150;
    case Isa::kScalar: return 450;
  }
  return 450;
}

Cost CostOf(Isa isa, const Problem& p, const DeviceCaps& caps) {
  Cost cost = WorkOf(p);
  const double draws = p.options.dropout > 0 ? VisiblePairs(p) * static_cast<double>(p.heads_q) * DropoutFlops(isa) : 0;
  const double compute = (cost.flops / Rate(isa) + draws) / (caps.fma_gflops * 1e9 * std::max(caps.threads, 1));
  cost.seconds = std::max(compute, cost.bytes / (caps.read_gbps * 1e9));
  return cost;
}

template <const CpuConfig& C>
constexpr KernelInfo Row(const char* name, const char* numerics, const char* summary) {
  return {name,
          numerics,
          [](const KernelInfo&, const Problem& p, const DeviceCaps& caps) { return Supports(C, p, caps); },
          [](const KernelInfo&, const Problem& p, const DeviceCaps& caps) { return CostOf(C.isa, p, caps); },
          [](const KernelInfo& k, const Problem& p, const DeviceCaps&, int threads) {
            return cpu::PlanForward(C, k.numerics, p, threads);
          },
          [](const LaunchContext& ctx) { cpu::LaunchForward(C, ctx); },
          summary};
}

template <const BackwardConfig& C>
constexpr KernelInfo BackwardRow(const char* name, const char* numerics) {
  return {name,
          numerics,
          [](const KernelInfo&, const Problem& p, const DeviceCaps& caps) { return BackwardSupports(C, p, caps); },
          [](const KernelInfo&, const Problem& p, const DeviceCaps& caps) { return CostOf(C.isa, p, caps); },
          [](const KernelInfo&, const Problem& p, const DeviceCaps&, int threads) {
            return cpu::PlanBackward(C, p, threads);
          },
          [](const LaunchContext& ctx) { cpu::LaunchBackward(C, ctx); },
          "gradients by tiles, probabilities from the lse"};
}

template <const cpu::BackwardKernels& K, Isa kIsa, int kType, bool kPairs>
constexpr BackwardConfig kBackwardConfig{&K, kIsa, kType == 0 ? "f32" : kType == 1 ? "f16" : "bf16", kPairs};

template <const cpu::ForwardKernels& K, Isa kIsa, Phase kPhase, int kType, bool kPairs>
constexpr CpuConfig kConfig{&K, kIsa, kPhase, kType == 0 ? "f32" : kType == 1 ? "f16" : kType == 2 ? "bf16" : "f8", kPairs};

static_assert(cpu::kBlockTokens == 512 && cpu::kSplitTokens == 1024, "the numerics ids below name them");

// The three phases of one type on one instruction set.
#define REGARD_PHASES(kernels, kIsa, isa, index, type, pairs, chain)                                            \
  Row<kConfig<kernels, kIsa, Phase::kPrefill, index, pairs>>("cpu." isa ".prefill." type,                       \
                                                             isa "." type "." chain ".block512.split1024",      \
                                                             "tiled online softmax, K and V packed per block"), \
  Row<kConfig<kernels, kIsa, Phase::kDecode, index, pairs>>("cpu." isa ".decode." type,                         \
                                                            isa "." type "." chain ".block512.split1024",       \
                                                            "split over keys, all kv heads in each"),           \
  Row<kConfig<kernels, kIsa, Phase::kMixed, index, pairs>>("cpu." isa ".mixed." type,                           \
                                                           isa "." type "." chain ".block512.split1024",        \
                                                           "prefill and decode sequences in one call")
#define REGARD_BACKWARD(kernels, kIsa, isa, index, type, pairs, chain)                            \
  BackwardRow<kBackwardConfig<kernels, kIsa, index, pairs>>("cpu." isa ".backward." type,         \
                                                            isa "." type "." chain ".backward")
#define REGARD_TYPES(kernels, kIsa, isa)                                        \
  REGARD_PHASES(kernels, kIsa, isa, 0, "f32", false, "chain1"),                 \
  REGARD_BACKWARD(kernels##Backward, kIsa, isa, 0, "f32", false, "chain1"),     \
  REGARD_PHASES(kernels, kIsa, isa, 1, "f16", false, "chain1"),                 \
  REGARD_BACKWARD(kernels##Backward, kIsa, isa, 1, "f16", false, "chain1"),     \
  REGARD_PHASES(kernels, kIsa, isa, 2, "bf16", false, "chain1"),                \
  REGARD_BACKWARD(kernels##Backward, kIsa, isa, 2, "bf16", false, "chain1"),    \
  REGARD_PHASES(kernels, kIsa, isa, 3, "f8", false, "chain1")

constexpr KernelInfo kCpuKernels[] = {
#if defined(__x86_64__)
    REGARD_PHASES(cpu::kAvx512Bf16Pairs, Isa::kAvx512Bf16, "avx512_bf16", 2, "bf16", true, "chain2"),
    REGARD_BACKWARD(cpu::kAvx512Bf16PairsBackward, Isa::kAvx512Bf16, "avx512_bf16", 2, "bf16", true, "chain2"),
    REGARD_PHASES(cpu::kAvx512Bf16Pairs, Isa::kAvx512Bf16, "avx512_bf16", 3, "f8", true, "chain2"),
    REGARD_TYPES(cpu::kAvx512F32, Isa::kAvx512, "avx512"),
    REGARD_TYPES(cpu::kAvx2F32, Isa::kAvx2, "avx2"),
#elif defined(__aarch64__)
    REGARD_TYPES(cpu::kNeonF32, Isa::kNeon, "neon"),
#endif
    REGARD_TYPES(cpu::kScalarF32, Isa::kScalar, "scalar"),
};

}  // namespace

std::span<const KernelInfo> CpuKernels() { return kCpuKernels; }

}  // namespace regard
