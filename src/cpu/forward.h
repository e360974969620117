// One forward launch on the CPU, whatever the phase: append, tasks, combine.
#pragma once

#include <cstdint>
#include <span>

#include "src/backend/kernel_info.h"
#include "src/cpu/params.h"

namespace regard::cpu {

// A kernel's configuration, whole: its ISA objects, and whether short sequences run through decode (no bit depends on it).
struct CpuConfig {
  const ForwardKernels* kernels;
  Isa isa;
  Phase phase;
  const char* type;  // of q: "f32" "f16" "bf16" "f8"
  bool pairs;        // bf16 pair products
};

// Where the time of launches goes, by worker: ticks of the time stamp counter in each phase of params.h. A cache line
// each, so that workers do not wait for one another's.
struct alignas(64) PhaseTimes {
  std::uint64_t ticks[kPhases] = {};
};
inline constexpr const char* kPhaseNames[kPhases] = {"pack", "qk", "softmax", "pv", "merge", "rest"};
inline constexpr const char* kBackwardPhaseNames[kPhases] = {"pack", "qk", "dp", "dqkv", "merge", "rest"};
// From now on every launch of the process adds to `workers` (one entry per executor worker); empty: stop. For
// `regard bench --profile`; not to be called while a launch runs.
void ProfilePhases(std::span<PhaseTimes> workers);
// The counters of one worker; null: no profile is taken.
std::uint64_t* PhaseTicksOf(int worker);

// The launch in plain numbers, but for what lies in its workspace (sequences, states) and what tuning sets.
ForwardParams ForwardParamsOf(const LaunchContext& ctx);

// `numerics`: of the kernel's row. Reads REGARD_TUNE (src/cpu/tune.h).
KernelPlan PlanForward(const CpuConfig& config, const char* numerics, const Problem& p, int threads);
void LaunchForward(const CpuConfig& config, const LaunchContext& ctx);

}  // namespace regard::cpu
