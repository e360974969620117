// Cases as text; the grid's own are those that every CPU kernel is checked on.
#include "tests/emulator/emulated_cases.h"

#include <iterator>
#include <map>
#include <string>
#include <utility>

#include "regard/device.h"
#include "src/backend/kernel_info.h"
#include "src/cases/grid.h"
#include "src/cuda/instances.h"
#include "src/cuda/known_gpus.h"

namespace regard::emulator {
namespace {

// On every GPU: several splits of 2048 keys, which prefill folds in place and decode in a kernel of its own.
constexpr const char* kLong[] = {
    "prefill sq=20 skv=4500 hq=2 hkv=1 d=64 dtype=f16 causal",
    "prefill sq=40 skv=2100 hq=1 hkv=1 d=64 dtype=f32",
    "decode b=2 sq=1 skv=4100 hq=4 hkv=2 d=64 dtype=f16 lens=4100,2048",
    "decode b=2 sq=3 skv=4500 hq=2 hkv=1 d=64 dtype=f16 causal page=16 leftpad",
    "decode sq=1 skv=6200 hq=2 hkv=2 d=40 dtype=f32 window=2500, sink",
};
// The GPUs in turn: head dims that have kernels of their own, and what the quick grid leaves out.
constexpr const char* kWide[] = {
    "prefill sq=130 skv=200 hq=2 hkv=1 d=96 dtype=bf16 causal",
    "decode b=2 sq=2 skv=300 hq=8 hkv=1 d=96 dtype=bf16 causal page=16",
    "prefill sq=130 skv=200 hq=2 hkv=1 d=128 dtype=f16 causal window=60,0 sink",
    "prefill sq=130 skv=200 hq=2 hkv=1 d=128 dtype=bf16 softcap=20 mask=0.2",
    "prefill sq=130 skv=200 hq=2 hkv=1 d=128 dtype=bf16 kv=f8e4m3 causal",
    "decode sq=1 skv=300 hq=8 hkv=1 d=128 dtype=f16",
    "decode sq=1 skv=300 hq=8 hkv=1 d=128 dtype=bf16 kv=f8e5m2 alibi",
    "decode sq=1 skv=300 hq=8 hkv=1 d=128 dtype=bf16 page=1 bias",
    "prefill sq=70 skv=200 hq=2 hkv=1 d=192 dv=128 dtype=bf16 causal",
    "decode sq=1 skv=300 hq=4 hkv=1 d=192 dv=128 dtype=bf16 sink",
    "prefill sq=140 skv=150 hq=1 hkv=1 d=256 dtype=f16 causal",
    "prefill sq=140 skv=150 hq=1 hkv=1 d=256 dtype=bf16 kv=f8e4m3",
    "decode sq=1 skv=200 hq=4 hkv=1 d=256 dtype=bf16",
    "prefill sq=40 skv=70 hq=2 hkv=1 d=320 dtype=f16 causal",
    "decode sq=3 skv=130 hq=2 hkv=1 d=320 dtype=bf16 causal",
    "prefill sq=20 skv=70 hq=2 hkv=1 d=512 dtype=bf16",
    "prefill sq=20 skv=70 hq=2 hkv=1 d=64 dtype=f8e4m3 qv causal",
};

}  // namespace

std::vector<EmulatedCase> EmulatedCases() {
  std::vector<EmulatedCase> cases;
  const int gpus = static_cast<int>(std::size(kGpus));
  const auto add = [&](Problem p) {
    if (p.score_mod || p.mask_mod) return;  // functions of the caller's process
    const int device = static_cast<int>(cases.size()) % gpus;
    cases.push_back({device, std::move(p)});
  };
  for (Problem& p : cases::Grid(cases::GridSize::kQuick)) add(std::move(p));
  for (const char* text : kLong) {
    for (int g = 0; g < gpus; ++g) add(ParseProblem(text));
  }
  for (const char* text : kWide) add(ParseProblem(text));
  return cases;
}

std::vector<const KernelInfo*> RowsFor(const Problem& p, const DeviceCaps& caps) {
  std::vector<const KernelInfo*> rows;
  for (const KernelInfo& row : CudaKernels()) {
    if (row.supports(row, p, caps).accepted) rows.push_back(&row);
  }
  return rows;
}

std::vector<const char*> HostileProblems() {
  return {"prefill b=3 sq=20 skv=150 hq=4 hkv=2 d=64 dtype=f16 causal page=16 leftpad lens=100,150,90 seed=3",
          "decode b=3 sq=3 skv=150 hq=4 hkv=2 d=64 dtype=f16 causal page=16 table=csr lens=100,150,90",
          "prefill b=3 sq=20 skv=150 hq=4 hkv=2 d=64 dtype=f16 causal varlen lens=100,150,90",
          "decode b=3 sq=2 skv=150 hq=4 hkv=2 d=64 dtype=f16 causal append=4 lens=100,150,90 seed=2"};
}

std::vector<testing::Shape> InvarianceShapes() {
  std::vector<testing::Shape> shapes;
  const auto add = [&](DType type, DType kv, bool options) {
    testing::Shape s;
    s.seq_q = 19, s.seq_kv = 2200, s.heads_q = 6, s.heads_kv = 2, s.head_dim = 40, s.head_dim_v = 24;
    s.dtype = type, s.kv_dtype = kv;
    s.options.causal = true;
    s.sink = true;
    if (options) {
      s.alibi = s.bias = s.mask = true;
      s.options.softcap = 20;
      s.options.window_left = 2100;
    }
    shapes.push_back(s);
  };
  add(DType::kF16, DType::kF16, false);
  add(DType::kBF16, DType::kBF16, true);
  add(DType::kF16, DType::kF8E4M3, true);
  add(DType::kF32, DType::kF32, true);
  return shapes;
}

namespace {

// The second word of its name.
cuda::Generation GenerationOf(const KernelInfo& row) {
  const std::string_view name = row.name;
  return name.starts_with("cuda.sm80.")   ? cuda::Generation::kSm80
         : name.starts_with("cuda.sm75.") ? cuda::Generation::kSm75
                                          : cuda::Generation::kGeneric;
}

// The problem of n of a shape's queries, as far as kernels go.
Problem ProblemOf(const testing::Shape& s, std::int64_t n) {
  Problem p;
  p.phase = n < s.seq_q ? Phase::kDecode : Phase::kPrefill;
  p.seq_q = n;
  p.seq_kv = s.seq_kv;
  p.heads_q = s.heads_q, p.heads_kv = s.heads_kv;
  p.head_dim = s.head_dim, p.head_dim_v = s.head_dim_v;
  p.dtype = s.dtype;
  p.kv_dtype = s.kv_dtype;
  p.options = s.options;
  p.alibi = s.alibi, p.bias = s.bias, p.mask = s.mask, p.sink = s.sink, p.qv = s.qv;
  return p;
}

}  // namespace

std::vector<cuda::KernelInstance> CaseInstances() {
  std::map<std::string, cuda::KernelInstance> instances;
  const auto add = [&](const Problem& p, int device) {
    const DeviceCaps caps = DeviceCaps::Known(kGpus[device]);
    for (const KernelInfo* row : RowsFor(p, caps)) {
      for (cuda::NeededInstance& needed : cuda::InstancesOf(GenerationOf(*row), p, *caps.gpu)) {
        instances.emplace(needed.instance.name, std::move(needed.instance));
      }
    }
  };
  for (const EmulatedCase& c : EmulatedCases()) add(c.problem, c.device);
  for (int device = 0; device < static_cast<int>(std::size(kGpus)); ++device) {
    for (const char* text : HostileProblems()) add(ParseProblem(text), device);
    for (const testing::Shape& shape : InvarianceShapes()) {
      for (const std::int64_t n : {shape.seq_q, std::int64_t{1}}) add(ProblemOf(shape, n), device);
    }
  }
  const cuda::KernelInstance merge = cuda::MergeInstance();
  instances.emplace(merge.name, merge);
  std::vector<cuda::KernelInstance> all;
  for (auto& [name, instance] : instances) all.push_back(std::move(instance));
  return all;
}

}  // namespace regard::emulator
