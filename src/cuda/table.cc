// Every CUDA kernel, best first: tensor cores of the chip's generation, then CUDA cores, which do everything. Adding a
// row is the whole registration.
//
// The phases of one generation and type share a numerics id: they run the same products over the same blocks and splits
// (src/cuda/kernels/base/config.h), so a row's bits do not depend on the phase. mma16, mma8: keys or channels that one
// matrix product of the chip sums. chain1: one product at a time, in order.
#include <algorithm>
#include <string>
#include <string_view>

#include "src/backend/kernel_info.h"
#include "src/backend/work.h"
#include "src/cuda/backward.h"
#include "src/cuda/devices.h"
#include "src/cuda/forward.h"
#include "src/cuda/instances.h"
#include "src/problem/phase.h"

namespace regard {
namespace {

using cuda::CudaRow;
using cuda::Generation;

static_assert(cuda::kBlockKeys == 64 && cuda::kSplitKeys == 2048, "the numerics ids below name them");

Verdict::Words WhyNotThisCpu(const DeviceCaps&) {
  const cuda::Status& gpu = cuda::WhyNoGpu();
  if (!gpu.ok) return {gpu.reason, gpu.remedy};
  return {"device cpu, needs cuda memory", "put the tensors on the GPU"};
}
Verdict::Words WhatIsMissing(const DeviceCaps& caps) {
  return {caps.gpu->missing, caps.gpu->remedy};
}
Verdict::Words NvrtcTooNew(const DeviceCaps& caps) {
  return {"sm_" + std::to_string(caps.gpu->sm) + " with NVRTC " + std::to_string(caps.gpu->nvrtc_major) +
              ", which starts at sm_75",
          "install an NVRTC 12 (pip install nvidia-cuda-nvrtc-cu12)"};
}

// Whether kernels of any kind can be made for the device.
Verdict SupportsDevice(const DeviceCaps& caps) {
  if (!caps.gpu) return Reject(WhyNotThisCpu);
  const GpuCaps& gpu = *caps.gpu;
  if (gpu.sm < 70)
    return Reject("compute capability sm", gpu.sm, ">= 70").Remedy("GPUs from Volta (V100) on have kernels");
  if (gpu.sm < 75 && gpu.nvrtc_major >= 13) return Reject(NvrtcTooNew);
  if (!gpu.missing.empty()) return Reject(WhatIsMissing);
  return Accept();
}

Verdict SupportsGeneration(Generation generation, int sm) {
  if (generation == Generation::kSm80 && sm < 80) {
    return Reject("compute capability sm", sm, ">= 80")
        .Remedy(sm == 75 ? "the sm75 and generic kernels take it" : "the generic kernels take it");
  }
  if (generation == Generation::kSm75 && sm != 75) {
    return Reject("compute capability sm", sm, "75")
        .Remedy(sm > 75 ? "none needed: the sm80 kernels take it" : "the generic kernels take it");
  }
  return Accept();
}

// What the row's type has to say to a problem of another one.
Verdict SupportsType(const CudaRow& row, const Problem& p, int sm) {
  if (std::string_view(row.type) == (IsFp8(p.dtype) ? "f8" : Name(p.dtype))) return Accept();
  const Verdict wrong = Reject("dtype", Name(p.dtype), row.type);
  if (row.generation == Generation::kGeneric) return Verdict(wrong).Remedy("the row of that type takes it");
  if (p.dtype == DType::kF32)
    return Verdict(wrong).Remedy("the generic kernels take it: f32 never goes through tf32 unasked");
  if (sm == 75 && p.dtype == DType::kBF16) {
    return Verdict(wrong).Remedy("the generic kernels take it: before sm_80 there are no bf16 products");
  }
  if (sm == 75) return Verdict(wrong).Remedy("the generic kernels take it");
  return Verdict(wrong).Remedy("the row of that type takes it");
}

// What tensor cores leave to the generic kernels.
Verdict SupportsTensor(const Problem& p, const GpuCaps& gpu) {
  constexpr std::string_view kGenericTakes = "the generic kernels take it";
  if (p.qv) return Reject("qv", "given", "one query a score").Remedy(kGenericTakes);
  if (p.head_dim > 256) return Reject("head_dim", p.head_dim, "<= 256").Remedy(kGenericTakes);
  if (p.head_dim_v > 256) return Reject("head_dim_v", p.head_dim_v, "<= 256").Remedy(kGenericTakes);
  if (!cuda::TensorFits(p, gpu)) {
    return Reject("shared memory of a block", gpu.shared_per_block_bytes,
                  "more bytes, for tiles of these head dims and types")
        .Remedy(kGenericTakes);
  }
  return Accept();
}

Verdict SupportsGeneric(const Problem& p, const GpuCaps& gpu) {
  if (SharedBytes(cuda::GenericConfigFor(p)) <= gpu.shared_per_block_bytes) return Accept();
  return Reject("shared memory of a block", gpu.shared_per_block_bytes,
                "more bytes, for queries of D and qv of Dv dims")
      .Remedy("a chip from sm_80 on takes it, or copy the tensors to the CPU");
}

// score_mod and mask_mod are functions of the caller's process.
Verdict SupportsFunctions(const Problem& p) {
  if (!p.score_mod && !p.mask_mod) return Accept();
  return Reject(p.score_mod ? "score_mod" : "mask_mod", "a function of the CPU", "none")
      .Remedy("say it with a bias or mask tensor, softcap or ALiBi, or copy the tensors to the CPU");
}

Verdict SupportsPhase(Phase phase, const Problem& p) {
  if (phase == Phase::kBackward) {
    if (p.phase == Phase::kBackward) return Accept();
    return Reject("phase", "forward", "backward").Remedy("none needed: the forward kernels take it");
  }
  if (p.phase == Phase::kBackward) {
    return Reject("phase", "backward", "a forward phase").Remedy("the generic backward kernels take it");
  }
  if (phase == Phase::kDecode && p.phase == Phase::kMixed) {
    return Reject("phase", "mixed", "decode").Remedy("none needed: prefill kernels take short queries too");
  }
  if (phase == Phase::kDecode && p.seq_q > kMaxDecodeQueries) {
    return Reject("seq_q", p.seq_q, "< 16").Remedy("prefill kernels take longer queries");
  }
  if (phase == Phase::kPrefill && cuda::RunsSplit(p)) {
    return Reject("seq_q", p.seq_q, ">= 16").Remedy("none needed: decode is the faster kernel here");
  }
  return Accept();
}

Verdict Supports(const CudaRow& row, const Problem& p, const DeviceCaps& caps) {
  Verdict verdict = SupportsDevice(caps);
  if (verdict.accepted) verdict = SupportsGeneration(row.generation, caps.gpu->sm);
  if (verdict.accepted) verdict = SupportsType(row, p, caps.gpu->sm);
  if (verdict.accepted) verdict = SupportsFunctions(p);
  if (verdict.accepted && row.generation != Generation::kGeneric) verdict = SupportsTensor(p, *caps.gpu);
  if (verdict.accepted && row.generation == Generation::kGeneric) verdict = SupportsGeneric(p, *caps.gpu);
  if (verdict.accepted) verdict = SupportsPhase(row.phase, p);
  return verdict;
}

// Rough shares of a chip's peak rates, for estimates only: tensor cores with a softmax between two products, CUDA cores
// fed from shared memory, memory read by decode.
constexpr double kTensorShare = 0.5, kGenericShare = 0.2, kMemoryShare = 0.8;
constexpr double kLaunchSeconds = 5e-6;

Cost CostOf(const CudaRow& row, const Problem& p, const DeviceCaps& caps) {
  Cost cost = WorkOf(p);
  const GpuCaps& gpu = *caps.gpu;
  const double tflops =
      row.generation == Generation::kGeneric ? gpu.f32_tflops * kGenericShare : gpu.tensor_f16_tflops * kTensorShare;
  cost.seconds =
      std::max(cost.flops / (tflops * 1e12), cost.bytes / (gpu.memory_gbps * kMemoryShare * 1e9)) + kLaunchSeconds;
  return cost;
}

template <Generation kGeneration, Phase kPhase, int kType>
constexpr CudaRow kRow{kGeneration, kPhase,
                       kType == 0   ? "f32"
                       : kType == 1 ? "f16"
                       : kType == 2 ? "bf16"
                                    : "f8"};

template <const CudaRow& R>
constexpr KernelInfo Row(const char* name, const char* numerics, const char* summary) {
  return {
      name,
      numerics,
      [](const KernelInfo&, const Problem& p, const DeviceCaps& caps) { return Supports(R, p, caps); },
      [](const KernelInfo&, const Problem& p, const DeviceCaps& caps) { return CostOf(R, p, caps); },
      [](const KernelInfo&, const Problem& p, const DeviceCaps& caps, int) { return cuda::PlanForward(R, p, caps); },
      cuda::LaunchForward,
      summary,
      DeviceType::kCuda};
}

template <const CudaRow& R>
constexpr KernelInfo BackwardRow(const char* name, const char* numerics) {
  return {name,
          numerics,
          [](const KernelInfo&, const Problem& p, const DeviceCaps& caps) { return Supports(R, p, caps); },
          [](const KernelInfo&, const Problem& p, const DeviceCaps& caps) { return CostOf(R, p, caps); },
          [](const KernelInfo&, const Problem& p, const DeviceCaps& caps, int) { return cuda::PlanBackward(p, caps); },
          cuda::LaunchBackward,
          "gradients on CUDA cores, one sum in one place",
          DeviceType::kCuda};
}

// Prefill (which takes mixed batches too) and decode of one type and generation.
#define REGARD_PHASES(generation, name, index, type, numerics, how)                                                  \
  Row<kRow<generation, Phase::kPrefill, index>>("cuda." name ".prefill." type, numerics, how ", mixed batches too"), \
      Row<kRow<generation, Phase::kDecode, index>>("cuda." name ".decode." type, numerics, how ", split over keys")
#define REGARD_SM80(index, type)                                                                 \
  REGARD_PHASES(Generation::kSm80, "sm80", index, type, "sm80." type ".mma16.block64.split2048", \
                "tensor cores, online softmax")
#define REGARD_GENERIC(index, type)                                                                        \
  REGARD_PHASES(Generation::kGeneric, "generic", index, type, "generic." type ".chain1.block64.split2048", \
                "CUDA cores, f32 products")

constexpr KernelInfo kCudaKernels[] = {
    REGARD_SM80(2, "bf16"),
    REGARD_SM80(1, "f16"),
    REGARD_SM80(3, "f8"),
    REGARD_PHASES(Generation::kSm75, "sm75", 1, "f16", "sm75.f16.mma8.block64.split2048",
                  "tensor cores, online softmax"),
    REGARD_GENERIC(0, "f32"),
    REGARD_GENERIC(1, "f16"),
    REGARD_GENERIC(2, "bf16"),
    REGARD_GENERIC(3, "f8"),
    BackwardRow<kRow<Generation::kGeneric, Phase::kBackward, 0>>("cuda.generic.backward.f32",
                                                                 "generic.f32.chain1.backward"),
    BackwardRow<kRow<Generation::kGeneric, Phase::kBackward, 1>>("cuda.generic.backward.f16",
                                                                 "generic.f16.chain1.backward"),
    BackwardRow<kRow<Generation::kGeneric, Phase::kBackward, 2>>("cuda.generic.backward.bf16",
                                                                 "generic.bf16.chain1.backward"),
};

}  // namespace

std::span<const KernelInfo> CudaKernels() {
  return kCudaKernels;
}

}  // namespace regard
