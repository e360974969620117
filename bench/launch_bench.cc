// What a call costs beside the kernel's own time: decode of one query over short keys, 32/8 heads, d 128, bf16, one
// thread. The "idle" launches go through everything (checks, parameters, schedule, executor) to a kernel that does
// nothing, so that their time is the overhead; "kernel" is the real one's.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/backend/kernel_info.h"
#include "src/cases/cases.h"
#include "src/cpu/forward.h"

namespace regard {
namespace {

const cpu::ForwardKernels& HostKernels() {
#if defined(__x86_64__)
  const DeviceCaps& caps = DeviceCaps::Host();
  if (caps.Has(Isa::kAvx512Bf16)) return cpu::kAvx512Bf16Pairs;
  if (caps.Has(Isa::kAvx512)) return cpu::kAvx512F32;
  if (caps.Has(Isa::kAvx2)) return cpu::kAvx2F32;
#elif defined(__aarch64__)
  return cpu::kNeonF32;
#endif
  return cpu::kScalarF32;
}

// The host's decode configuration with kernels that return at once.
const cpu::CpuConfig& IdleConfig() {
  static const cpu::ForwardKernels kernels = [] {
    cpu::ForwardKernels k = HostKernels();
    k.run = [](const cpu::ForwardParams&, const cpu::Task&, float*) {};
    k.combine = [](const cpu::ForwardParams&, const cpu::Combine&, std::int64_t, std::int64_t, float*) {};
    return k;
  }();
  static const cpu::CpuConfig config{&kernels, Isa::kScalar, Phase::kDecode, "bf16", false};
  return config;
}

struct Call {
  explicit Call(const std::string& text)
      : executor(MakeExecutor(ExecutorKind::kOpenMp, 1)), made(cases::MakeCase(ParseProblem(text))) {
    selection = Select(made.problem(), DeviceCaps::Host());
  }
  void PlanFor(const Selection& s) {
    plan = std::make_unique<Plan>(made.problem(), s, executor.get());
    memory.resize(plan->workspace_bytes());
  }
  Workspace workspace() { return {memory.data(), memory.size()}; }

  std::unique_ptr<Executor> executor;
  cases::Case made;
  Selection selection;
  std::unique_ptr<Plan> plan;
  std::vector<std::byte> memory;
};

std::string TextOf(const benchmark::State& state) {
  return "decode b=" + std::to_string(state.range(0)) + " sq=1 skv=" + std::to_string(state.range(1)) +
         " hq=32 hkv=8 d=128 dtype=bf16";
}

void LaunchIdle(benchmark::State& state) {
  Call call(TextOf(state));
  static KernelInfo row;
  row = *call.selection.chosen;
  row.launch = [](const LaunchContext& ctx) { cpu::LaunchForward(IdleConfig(), ctx); };
  Selection idle = call.selection;
  idle.chosen = &row;
  call.PlanFor(idle);
  for (auto _ : state) Launch(*call.plan, call.made.args(), call.workspace());
}

void LaunchKernel(benchmark::State& state) {
  Call call(TextOf(state));
  call.PlanFor(call.selection);
  for (auto _ : state) Launch(*call.plan, call.made.args(), call.workspace());
}

void SelectOnly(benchmark::State& state) {
  Call call(TextOf(state));
  for (auto _ : state) benchmark::DoNotOptimize(Select(call.made.problem(), DeviceCaps::Host()));
}

void OneCall(benchmark::State& state) {
  Call call(TextOf(state));
  CallControl control;
  control.executor = call.executor.get();
  for (auto _ : state)
    benchmark::DoNotOptimize(Attention(call.made.args(), call.made.problem().options, false, control));
}

BENCHMARK(LaunchIdle)->Name("launch, idle")->Args({1, 16})->Args({64, 16})->Args({1, 32768});
BENCHMARK(LaunchKernel)->Name("launch, kernel")->Args({1, 16});
BENCHMARK(SelectOnly)->Name("select")->Args({1, 16});
BENCHMARK(OneCall)->Name("one call")->Args({1, 16});

}  // namespace
}  // namespace regard

BENCHMARK_MAIN();
