// The choice on GPUs, by name, under pretended ones: no driver and no GPU take part.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/backend/kernel_info.h"

namespace regard {
namespace {

Selection On(const char* gpu, const std::string& text, const KernelChoice& choice = {}) {
  return Select(ParseProblem(text), DeviceCaps::Known(gpu), choice);
}

TEST(CudaSelect, PicksByChipPhaseAndType) {
  const struct {
    const char *gpu, *problem, *kernel;
  } cases[] = {
      {"V100", "prefill sq=512 skv=512 d=128 dtype=f16", "cuda.generic.prefill.f16"},
      {"V100", "decode sq=1 skv=512 d=128 dtype=bf16", "cuda.generic.decode.bf16"},
      {"T4", "prefill sq=512 skv=512 d=128 dtype=f16", "cuda.sm75.prefill.f16"},
      {"T4", "decode sq=1 skv=512 d=128 dtype=f16 kv=f8e4m3 page=1", "cuda.sm75.decode.f16"},
      {"T4", "decode sq=1 skv=512 d=128 dtype=bf16", "cuda.generic.decode.bf16"},
      {"T4", "prefill sq=512 skv=512 d=256 dtype=f16", "cuda.generic.prefill.f16"},
      {"T4", "prefill sq=99 skv=99 dtype=f8e4m3 kv=f8e4m3", "cuda.generic.prefill.f8"},
      {"A100", "prefill sq=4096 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 causal", "cuda.sm80.prefill.bf16"},
      {"A100", "decode b=4 sq=1 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 page=16", "cuda.sm80.decode.bf16"},
      {"A100", "mixed b=2 lens=1000,1000 qlens=1,1000 varlen dtype=f16", "cuda.sm80.prefill.f16"},
      {"A100", "prefill sq=64 skv=64 d=64 dtype=f32", "cuda.generic.prefill.f32"},
      {"A100", "decode sq=1 skv=99 dtype=bf16 qv", "cuda.generic.decode.bf16"},
      {"A100", "prefill sq=64 skv=64 d=257 dtype=bf16", "cuda.generic.prefill.bf16"},
      {"A100", "prefill sq=64 skv=64 d=512 dv=64 dtype=f16", "cuda.generic.prefill.f16"},
      {"A100", "prefill sq=64 skv=64 d=192 dv=128 dtype=bf16 softcap=30 alibi sink dropout=0.1",
       "cuda.sm80.prefill.bf16"},
      {"A100", "backward sq=64 skv=64 d=64 dtype=bf16 bias dbias", "cuda.generic.backward.bf16"},
      {"RTX 4090", "decode sq=15 skv=99 d=80 dv=48 dtype=f16 kv=f8e5m2", "cuda.sm80.decode.f16"},
      {"RTX 4090", "decode sq=1 skv=99 d=256 dtype=f16", "cuda.sm80.decode.f16"},
      {"H100", "decode sq=1 skv=99 dtype=f8e4m3 kv=f8e4m3", "cuda.sm80.decode.f8"},
      {"H200", "prefill sq=128 skv=128 d=1 dtype=bf16", "cuda.sm80.prefill.bf16"},
      {"B200", "prefill sq=128 skv=128 dtype=bf16 append=16 rotary=half", "cuda.sm80.prefill.bf16"},
      {"RTX 5090", "prefill sq=0 skv=0 dtype=bf16", "cuda.sm80.decode.bf16"},
  };
  for (const auto& c : cases) EXPECT_EQ(On(c.gpu, c.problem).kernel, c.kernel) << c.gpu << ": " << c.problem;
}

struct Refusal {
  const char *gpu, *problem, *kernel, *reason, *remedy;
};

TEST(CudaSelect, RejectionsCarryReasonAndRemedy) {
  const Refusal cases[] = {
      {"T4", "prefill sq=512 skv=512 dtype=bf16", "cuda.sm75.prefill.f16", "dtype bf16, needs f16",
       "the generic kernels take it: before sm_80 there are no bf16 products"},
      {"T4", "prefill sq=512 skv=512 dtype=bf16", "cuda.sm80.prefill.bf16", "compute capability sm 75, needs >= 80",
       "the sm75 and generic kernels take it"},
      {"V100", "prefill sq=512 skv=512 dtype=f16", "cuda.sm75.prefill.f16", "compute capability sm 70, needs 75",
       "the generic kernels take it"},
      {"A100", "prefill sq=512 skv=512 dtype=f16", "cuda.sm75.prefill.f16", "compute capability sm 80, needs 75",
       "none needed: the sm80 kernels take it"},
      {"A100", "prefill sq=64 skv=64 dtype=f32", "cuda.sm80.prefill.f16", "dtype f32, needs f16",
       "the generic kernels take it: f32 never goes through tf32 unasked"},
      {"A100", "prefill sq=64 skv=64 d=320 dtype=f16", "cuda.sm80.prefill.f16", "head_dim 320, needs <= 256",
       "the generic kernels take it"},
      {"A100", "prefill sq=64 skv=64 dv=257 dtype=f16", "cuda.sm80.prefill.f16", "head_dim_v 257, needs <= 256",
       "the generic kernels take it"},
      {"A100", "decode sq=1 skv=64 dtype=f16 qv", "cuda.sm80.decode.f16", "qv given, needs one query a score",
       "the generic kernels take it"},
      {"A100", "decode sq=1 skv=64 dtype=f16", "cuda.sm80.prefill.f16", "seq_q 1, needs >= 16",
       "none needed: decode is the faster kernel here"},
      {"A100", "prefill sq=64 skv=64 dtype=f16", "cuda.sm80.decode.f16", "seq_q 64, needs < 16",
       "prefill kernels take longer queries"},
      {"A100", "prefill sq=64 skv=64 dtype=f16", "cuda.generic.backward.f16", "phase forward, needs backward",
       "none needed: the forward kernels take it"},
      {"A100", "backward sq=64 skv=64 dtype=f16", "cuda.sm80.prefill.f16", "phase backward, needs a forward phase",
       "the generic backward kernels take it"},
      {"H100", "prefill sq=64 skv=64 dtype=f32", "reference", "device cuda, needs cpu memory",
       "copy the tensors to the CPU"},
      {"H100", "prefill sq=64 skv=64 dtype=f32", "cpu.scalar.prefill.f32", "device cuda, needs cpu memory",
       "copy the tensors to the CPU"},
  };
  for (const Refusal& c : cases) {
    const Rejection r = On(c.gpu, c.problem).RejectionOf(c.kernel);
    EXPECT_EQ(r.reason, c.reason) << c.problem;
    EXPECT_EQ(r.remedy, c.remedy) << c.problem;
    EXPECT_FALSE(r.able);
  }
  EXPECT_TRUE(On("A100", "prefill sq=64 skv=64 dtype=f16").RejectionOf("cuda.generic.prefill.f16").able);
}

TEST(CudaSelect, TilesThatDoNotFitTheChipGoToTheGenericKernelsInEveryPhase) {
  const char* fp8 = " d=256 dtype=f16 kv=f8e4m3";
  for (const std::string phase : {"prefill sq=64 skv=64", "decode sq=1 skv=64"}) {
    const Selection small = On("RTX 4090", phase + fp8);
    EXPECT_TRUE(small.kernel.starts_with("cuda.generic.")) << small.kernel;
    const Rejection r = small.RejectionOf(phase[0] == 'p' ? "cuda.sm80.prefill.f16" : "cuda.sm80.decode.f16");
    EXPECT_NE(r.reason.find("shared memory of a block"), std::string::npos) << r.reason;
    EXPECT_TRUE(On("A100", phase + fp8).kernel.starts_with("cuda.sm80.")) << phase;
  }
}

TEST(CudaSelect, ACallersFunctionsAreRefusedWithAWayOut) {
  for (const char* word : {"scoremod", "maskmod"}) {
    try {
      On("A100", std::string("prefill sq=64 skv=64 dtype=bf16 ") + word);
      FAIL() << "selected for " << word;
    } catch (const Error& e) {
      EXPECT_EQ(e.field(), "kernel");
      EXPECT_NE(e.expected().find("a function of the CPU, needs none"), std::string::npos) << e.expected();
      EXPECT_NE(e.expected().find("bias or mask tensor"), std::string::npos) << e.expected();
    }
  }
}

TEST(CudaSelect, WhatIsMissingOnTheMachineIsTheReason) {
  DeviceCaps caps = DeviceCaps::Known("A100");
  caps.gpu->missing = "no NVRTC found";
  caps.gpu->remedy = "pip install nvidia-cuda-nvrtc";
  try {
    Select(ParseProblem("prefill sq=64 skv=64 dtype=bf16"), caps);
    FAIL() << "selected";
  } catch (const Error& e) {
    EXPECT_NE(e.expected().find("no NVRTC found (pip install nvidia-cuda-nvrtc)"), std::string::npos) << e.expected();
  }
}

TEST(CudaSelect, AV100WantsAnNvrtcThatKnowsIt) {
  DeviceCaps caps = DeviceCaps::Known("V100");
  caps.gpu->nvrtc_major = 13;
  const KernelInfo* row = FindKernel("cuda.generic.prefill.f32");
  ASSERT_NE(row, nullptr);
  const Verdict verdict = row->supports(*row, ParseProblem("prefill sq=64 skv=64 dtype=f32"), caps);
  EXPECT_FALSE(verdict.accepted);
  EXPECT_EQ(verdict.Said(caps).reason, "sm_70 with NVRTC 13, which starts at sm_75");
  EXPECT_EQ(verdict.Said(caps).remedy, "install an NVRTC 12 (pip install nvidia-cuda-nvrtc-cu12)");
  caps.gpu->sm = 61;
  EXPECT_EQ(row->supports(*row, ParseProblem("prefill sq=64 skv=64 dtype=f32"), caps).Said(caps).reason,
            "compute capability sm 61, needs >= 70");
}

TEST(CudaSelect, ACpuRejectsEveryCudaRowForOneReason) {
  const Selection s = Select(ParseProblem("prefill sq=64 skv=64 dtype=bf16"), DeviceCaps::Host());
  std::map<std::string, int> reasons;
  for (const Rejection& r : s.rejected) {
    if (r.kernel.starts_with("cuda.")) ++reasons[r.reason + " -> " + r.remedy];
  }
  ASSERT_EQ(reasons.size(), 1u);
  EXPECT_EQ(static_cast<std::size_t>(reasons.begin()->second), CudaKernels().size());
  EXPECT_FALSE(s.gpu);
}

TEST(CudaSelect, NoRowTakesTheProblemOfAnotherDevice) {
  const DeviceCaps gpu = DeviceCaps::Known("H100"), cpu = DeviceCaps::Host();
  for (const char* text : {"prefill sq=64 skv=64 dtype=bf16", "decode sq=1 skv=64 dtype=f32", "backward sq=64 skv=64 dtype=f16"}) {
    const Problem p = ParseProblem(text);
    for (const KernelInfo* row : AllKernels()) {
      const DeviceCaps& other = row->device == DeviceType::kCpu ? gpu : cpu;
      EXPECT_FALSE(row->supports(*row, p, other).accepted) << row->name << ": " << text;
    }
  }
}

// docs/semantics.md, "Determinism": under invariance the numerics id depends on dtype, head dims, options and device
// only.
TEST(CudaSelect, NumericsNeverChangeWithPhaseLengthsBatchPageOrLayout) {
  const std::vector<std::string> fixed = {"d=64 dtype=f32",
                                          "d=128 dtype=bf16 causal",
                                          "d=80 dv=96 dtype=f16 softcap=3",
                                          "d=256 dtype=f16",
                                          "d=64 dtype=bf16 sink",
                                          "d=96 dtype=bf16 kv=f8e4m3 qv",
                                          "d=256 dtype=bf16 kv=f8e5m2",
                                          "d=192 dv=128 dtype=f16 kv=f8e4m3",
                                          "d=512 dtype=f16 dropout=0.5",
                                          "d=64 dtype=f8e4m3 kv=f8e4m3"};
  const std::vector<std::string> free = {"decode sq=1 skv=1 hq=4 hkv=2",
                                         "decode b=64 sq=1 skv=100000 hq=4 hkv=2",
                                         "decode sq=15 skv=77 hq=4 hkv=2 page=1",
                                         "prefill sq=16 skv=16 hq=4 hkv=2",
                                         "prefill b=3 sq=9000 skv=9000 hq=4 hkv=2",
                                         "prefill sq=128 skv=4096 hq=4 hkv=2 page=256 layout=HND",
                                         "prefill sq=5 skv=4096 hq=4 hkv=2",
                                         "mixed b=2 qlens=1,64 lens=64,64 hq=4 hkv=2 varlen",
                                         "decode b=2 sq=1 skv=64 hq=4 hkv=2 page=16 table=csr",
                                         "prefill b=2 sq=64 skv=64 hq=4 hkv=2 varlen"};
  for (const std::string& gpu : DeviceCaps::KnownNames()) {
    for (const std::string& options : fixed) {
      std::map<std::string, std::string> numerics;
      for (const std::string& shape : free) numerics[On(gpu.c_str(), shape + " " + options).numerics] = shape;
      EXPECT_EQ(numerics.size(), 1u) << gpu << " " << options << ": " << numerics.begin()->first << " at "
                                     << numerics.begin()->second << ", " << numerics.rbegin()->first << " at "
                                     << numerics.rbegin()->second;
    }
  }
}

TEST(CudaSelect, APretendedGpuIsPlannedButNeverRun) {
  const Problem p = ParseProblem("decode b=2 sq=1 skv=5000 hq=8 hkv=2 d=128 dtype=f16");
  const Plan plan(p, Select(p, DeviceCaps::Known("A100")));
  EXPECT_EQ(plan.shape().max_tasks, 2 * 2 * 3) << "sequences x kv heads x splits of 2048 keys";
  EXPECT_EQ(plan.shape().instances.size(), 2u) << "decode and combine";
  EXPECT_GE(plan.workspace_bytes(), 12u * 16 * 130 * 4) << "a state of 16 rows for each split";
  std::vector<char> workspace(plan.workspace_bytes());
  try {
    Launch(plan, AttentionArgs{}, {workspace.data(), workspace.size()});
    FAIL() << "launched";
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), "plan");
    EXPECT_NE(e.expected().find("A100 is pretended"), std::string::npos) << e.expected();
  }
}

TEST(CudaSelect, APlanOfWhatTheKernelCannotDoIsAnError) {
  const Selection s = On("A100", "prefill sq=64 skv=64 d=128 dtype=f16");
  try {
    Plan(ParseProblem("prefill sq=64 skv=64 d=512 dtype=f16"), s);
    FAIL() << "planned";
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), "selection");
    EXPECT_NE(e.expected().find("head_dim 512, needs <= 256"), std::string::npos) << e.expected();
  }
  Selection without_device = s;
  without_device.gpu = nullptr;
  EXPECT_THROW(Plan(ParseProblem("prefill sq=64 skv=64 d=128 dtype=f16"), without_device), Error);
}

TEST(CudaSelect, ALongPromptNeedsStatesForResidentBlocksOnly) {
  const Problem p = ParseProblem("prefill sq=131072 skv=131072 hq=32 hkv=8 d=128 dtype=bf16 causal");
  const Plan plan(p, Select(p, DeviceCaps::Known("H100")));
  EXPECT_LT(plan.workspace_bytes(), std::size_t{64} << 20);
  const Problem one_split = ParseProblem("prefill sq=2048 skv=2048 hq=32 hkv=8 d=128 dtype=bf16 causal");
  EXPECT_EQ(Plan(one_split, Select(one_split, DeviceCaps::Known("H100"))).workspace_bytes(), 0u);
}

TEST(CudaSelect, WorkBeyondAGridIsAnErrorThatNamesItsBound) {
  const Problem p = ParseProblem("decode b=100000000 sq=1 skv=100 hq=64 hkv=64 d=64 dtype=f16");
  EXPECT_THROW(Plan(p, Select(p, DeviceCaps::Known("H100"))), Error);
}

TEST(KnownGpus, AreFoundByAnySpelling) {
  EXPECT_EQ(DeviceCaps::Known("rtx4090").name, "RTX 4090");
  EXPECT_EQ(DeviceCaps::Known("4090").name, "RTX 4090");
  EXPECT_EQ(DeviceCaps::Known("h100").gpu->sm, 90);
  for (const std::string& name : DeviceCaps::KnownNames()) {
    const DeviceCaps caps = DeviceCaps::Known(name);
    EXPECT_EQ(caps.name, name);
    ASSERT_TRUE(caps.gpu);
    EXPECT_FALSE(caps.gpu->index);
    EXPECT_GT(caps.gpu->tensor_f16_tflops, caps.gpu->f32_tflops) << name;
  }
  try {
    DeviceCaps::Known("H1000");
    FAIL() << "known";
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), "device");
    EXPECT_NE(e.expected().find("H100"), std::string::npos);
  }
}

TEST(Gpu, OneThatIsNotHereIsAnErrorWithTheReason) {
  try {
    DeviceCaps::Gpu(1000);
    FAIL() << "there";
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), "device");
    EXPECT_EQ(e.value(), "cuda:1000");
    EXPECT_FALSE(e.expected().empty());
  }
}

}  // namespace
}  // namespace regard
