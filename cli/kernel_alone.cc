#include "cli/kernel_alone.h"

#include <chrono>
#include <optional>
#include <vector>

#include "regard/status.h"
#include "src/backend/plan_impl.h"
#include "src/cpu/forward.h"

namespace regard::cli {
namespace {

// What a kernel was called with. Addresses in it lie in the case's tensors and workspace.
struct Call {
  cpu::ForwardParams params;
  cpu::Task task;
  float* scratch;
};
std::vector<Call> calls;
const cpu::ForwardKernels* kernels = nullptr;

void RunAndRemember(const cpu::ForwardParams& params, const cpu::Task& task, float* scratch) {
  calls.push_back({params, task, scratch});
  kernels->run(params, task, scratch);
}

const cpu::ForwardKernels* KernelsOf(const std::string& name) {
#if defined(__x86_64__)
  if (name.starts_with("cpu.avx512_bf16.")) return &cpu::kAvx512Bf16Pairs;
  if (name.starts_with("cpu.avx512.")) return &cpu::kAvx512F32;
  if (name.starts_with("cpu.avx2.")) return &cpu::kAvx2F32;
#elif defined(__aarch64__)
  if (name.starts_with("cpu.neon.")) return &cpu::kNeonF32;
#endif
  return name.starts_with("cpu.scalar.") ? &cpu::kScalarF32 : nullptr;
}

}  // namespace

KernelAlone::KernelAlone(const PreparedCase& prepared) {
  const Plan::Impl& impl = prepared.plan().impl();
  const Problem& p = prepared.problem();
  const std::string& name = impl.selection.kernel;
  kernels = KernelsOf(name);
  calls.clear();
  if (kernels && p.phase != Phase::kBackward) {
    // Runs on the calling thread, so that no two calls are remembered at a time.
    const std::unique_ptr<Executor> serial(MakeExecutor(ExecutorKind::kSerial, 1));
    cpu::ForwardKernels remembering = *kernels;
    remembering.run = RunAndRemember;
    const cpu::CpuConfig config{&remembering, Isa::kScalar, p.phase, "", false};
    const AttentionArgs& args = prepared.args();
    std::vector<Sequence> sequences(static_cast<std::size_t>(prepared.sequences()));
    std::vector<std::byte> scratch(ResolveScratchBytes(p));
    ResolveArgs(p, args, true, sequences, scratch);
    auto* base = static_cast<std::byte*>(prepared.workspace().data) + impl.sequences_bytes + impl.scratch_bytes;
    base += (64 - reinterpret_cast<std::uintptr_t>(base) % 64) % 64;
    const std::span<std::byte> own(base, impl.kernel.workspace_bytes);
    cpu::LaunchForward(config, {p, args, sequences, impl.kernel, *serial, own, nullptr, {}});
  }
  if (calls.size() != 1) {
    throw Error("case", prepared.text(), "a forward case that a CPU kernel runs as one task; " + name + " runs " +
                                             std::to_string(calls.size()));
  }
}

double KernelAlone::Seconds(int count) const {
  const Call& call = calls.front();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) kernels->run(call.params, call.task, call.scratch);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / count;
}

}  // namespace regard::cli
