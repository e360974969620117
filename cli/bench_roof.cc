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
  return read_ ? read_->variant() : std::string("independent chains, ") + Name(isa_);
}

double Roof::Run(double seconds) {
  return (read_ ? read_->Run() : probe::FlopsRoof(executor_, isa_, kind_, seconds)) / 1e9;
}

}  // namespace regard::cli
