// Cases as text; the grid's own are those that every CPU kernel is checked on.
#include "tests/emulator/forward_cases.h"

#include <string_view>

#include "regard/device.h"
#include "regard/plan.h"
#include "src/cases/grid.h"
#include "src/cuda/instances.h"
#include "src/cuda/known_gpus.h"

namespace regard::emulator {
namespace {

// Several splits of 2048 keys: prefill folds them in place, decode in a kernel of its own.
constexpr const char* kLong[] = {
    "prefill sq=20 skv=4500 hq=2 hkv=1 d=64 dtype=f16 causal",
    "prefill sq=40 skv=2100 hq=1 hkv=1 d=64 dtype=f32",
    "decode b=2 sq=1 skv=4100 hq=4 hkv=2 d=64 dtype=f16 lens=4100,2048",
    "decode b=2 sq=3 skv=4500 hq=2 hkv=1 d=64 dtype=f16 causal page=16 leftpad",
    "decode sq=1 skv=6200 hq=2 hkv=2 d=40 dtype=f32 window=2500, sink",
};

}  // namespace

std::vector<ForwardCase> ForwardCases() {
  std::vector<ForwardCase> cases;
  const int gpus = static_cast<int>(std::size(kGpus));
  const auto add = [&](Problem p) {
    if (p.phase == Phase::kBackward || p.score_mod || p.mask_mod) return;
    const int device = static_cast<int>(cases.size()) % gpus;
    cases.push_back({device, std::move(p)});
  };
  for (Problem& p : cases::Grid(cases::GridSize::kQuick)) add(std::move(p));
  for (const char* text : kLong) {
    for (int g = 0; g < gpus; ++g) add(ParseProblem(text));
  }
  return cases;
}

std::vector<cuda::KernelInstance> InstancesOf(const ForwardCase& c) {
  const DeviceCaps caps = DeviceCaps::Known(kGpus[c.device]);
  const Selection selection = Select(c.problem, caps);
  std::vector<cuda::KernelInstance> instances;
  int head_dim_v = 0;
  if (std::string_view(selection.kernel).starts_with("cuda.generic.")) {
    const cuda::GenericConfig config = cuda::GenericConfigFor(c.problem);
    head_dim_v = config.head_dim_v;
    instances.push_back(cuda::InstanceOf(config));
  } else {
    const cuda::TensorConfig config = cuda::TensorConfigFor(c.problem, *caps.gpu).value();
    head_dim_v = config.head_dim_v;
    instances.push_back(cuda::InstanceOf(config));
  }
  if (cuda::RunsSplit(c.problem)) instances.push_back(cuda::CombineInstance(head_dim_v));
  if (c.problem.append) instances.push_back(cuda::AppendInstance());
  return instances;
}

}  // namespace regard::emulator
