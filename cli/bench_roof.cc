#include "cli/bench_roof.h"

#include "cli/device_options.h"
#include "cli/kv_chunks.h"

namespace regard::cli {
namespace {

// The instruction set in a kernel's name ("cpu.avx2.prefill.f32"); this machine's best for other names.
Isa IsaOf(const std::string& kernel) {
  for (const Isa isa : kAllIsas) {
    if (kernel.rfind("cpu." + std::string(Name(isa)) + ".", 0) == 0) return isa;
  }
  return DeviceCaps::Host().Best();
}

}  // namespace

Roof::Roof(const PreparedCase& prepared, Executor& executor)
    : executor_(executor), isa_(IsaOf(prepared.plan().selection().kernel)) {
  const Problem& p = prepared.problem();
  const Work& work = prepared.work();
  if (prepared.plan().selection().gpu) {
    const GpuCaps& gpu = *prepared.plan().selection().gpu->gpu;
    const bool tensor = !prepared.plan().selection().kernel.starts_with("cuda.generic.");
    const double gflops = (tensor ? gpu.tensor_f16_tflops : gpu.f32_tflops) * 1e3;
    const bool memory_bound = work.bytes / gpu.memory_gbps > work.flops / gflops;
    name_ = memory_bound ? "gpu_memory" : tensor ? "tensor_f16" : "cuda_f32";
    peak_ = memory_bound ? gpu.memory_gbps : gflops;
    return;
  }
  // Every row of this instruction set multiplies bf16 pairs; fp8 is widened to them.
  const bool dots = prepared.plan().selection().kernel.rfind("cpu.avx512_bf16.", 0) == 0;
  kind_ = dots ? probe::FlopsKind::kDotBf16 : probe::FlopsKind::kFmaF32;
  const bool random = p.page_size && p.placement == Placement::kRandom;
  const bool computes = p.phase == Phase::kPrefill || p.phase == Phase::kBackward;
  if (!computes && work.bytes > 0) {
    read_.emplace(executor, isa_, random ? work.chunks : JoinedByAddress(work.chunks),
                  random ? probe::ReadKind::kChunks : probe::ReadKind::kStreams);
  }
  if (read_ && p.phase == Phase::kMixed) {
    const double compute = work.flops / probe::FlopsRoof(executor, isa_, kind_, 0.01),
                 reading = work.bytes / read_->Run();
    if (compute > reading) read_.reset();
  }
  name_ = read_ ? (random ? "read_pages" : "read") : dots ? "dot_bf16" : "fma_f32";
}

std::string Roof::how() const {
  if (peak_ > 0) return "the vendor's peak";
  return read_ ? read_->variant() : std::string("independent chains, ") + Name(isa_);
}

double Roof::Run(double seconds) {
  if (peak_ > 0) return peak_;
  return (read_ ? read_->Run() : probe::FlopsRoof(executor_, isa_, kind_, seconds)) / 1e9;
}

}  // namespace regard::cli
