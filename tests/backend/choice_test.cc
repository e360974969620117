// The rule of selection over tables of the test's own, and the environment as a choice.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/backend/select.h"

namespace regard {
namespace {

Verdict Able(const KernelInfo&, const Problem&, const DeviceCaps&) { return Accept(); }
Verdict ShortOnly(const KernelInfo&, const Problem& p, const DeviceCaps&) {
  if (p.seq_q > 15) return Reject("seq_q", p.seq_q, "< 16").Remedy("prefill rows take it");
  return Accept();
}
template <int kMilliseconds>
Cost Takes(const KernelInfo&, const Problem&, const DeviceCaps&) {
  return {.flops = 1, .bytes = 1, .seconds = kMilliseconds / 1e3};
}

constexpr KernelInfo kSlow{"test.a.slow", "id_a", Able, Takes<40>, nullptr, nullptr, ""};
constexpr KernelInfo kFast{"test.a.fast", "id_a", Able, Takes<10>, nullptr, nullptr, ""};
constexpr KernelInfo kShort{"test.a.short", "id_a", ShortOnly, Takes<5>, nullptr, nullptr, ""};
constexpr KernelInfo kOther{"test.b.fastest", "id_b", Able, Takes<1>, nullptr, nullptr, ""};
constexpr const KernelInfo* kRows[] = {&kSlow, &kFast, &kShort, &kOther};

Selection Among(std::int64_t seq_q, const KernelChoice& choice = {}, std::string_view source = "") {
  Problem p;
  p.seq_q = seq_q;
  return SelectAmong(kRows, p, DeviceCaps{}, choice, source);
}

TEST(Choice, CostDecidesOnlyAmongKernelsOfOneNumericsId) {
  EXPECT_EQ(Among(100).kernel, "test.a.fast");
  EXPECT_EQ(Among(1).kernel, "test.a.short");
  EXPECT_EQ(Among(100).numerics, "id_a");
  EXPECT_EQ(Among(100).RejectionOf("test.a.slow").reason, "can do it, about 4.0x slower");
  EXPECT_EQ(Among(100).RejectionOf("test.a.short").remedy, "prefill rows take it");
  EXPECT_EQ(Among(100).RejectionOf("test.b.fastest").reason,
            "can do it, about 10x faster, but comes later in the order of preference");
}

TEST(Choice, TheOrderOfPatternsBeatsCostAndTheTable) {
  EXPECT_EQ(Among(100, {{"test.b", "test"}, {}}).kernel, "test.b.fastest");
  EXPECT_EQ(Among(100, {{"test.a.slow", "test"}, {}}).kernel, "test.a.slow");
  EXPECT_EQ(Among(100, {{"test.a.short", "test.a.slow"}, {}}).kernel, "test.a.slow");
  EXPECT_EQ(Among(100, {{"test"}, {"test.a.fast", "test.b"}}).kernel, "test.a.slow");
  EXPECT_EQ(Among(100, {{"test.b"}, {}}).RejectionOf("test.a.fast").reason, "not among the kernels asked for");
}

TEST(Choice, ReasonsCanBeReadAfterProblemDeviceAndChoiceAreGone) {
  Selection copy;
  {
    Problem p;
    p.seq_q = 100;
    DeviceCaps caps;
    KernelChoice choice{{"test.a"}, {"test.a.slow"}};
    const Selection s = SelectAmong(kRows, p, caps, choice);
    copy = s;
    p.seq_q = 1;
    choice = {};
  }
  EXPECT_EQ(copy.RejectionOf("test.a.short").reason, "seq_q 100, needs < 16");
  EXPECT_EQ(copy.RejectionOf("test.a.slow").reason, "excluded by choice");
  EXPECT_EQ(copy.RejectionOf("test.b.fastest").reason, "not among the kernels asked for");
  EXPECT_FALSE(copy.rejected.empty());
  EXPECT_TRUE(Selection{}.rejected.empty());
}

TEST(Choice, EveryOtherKernelIsRejectedInTableOrder) {
  const Selection s = Among(1, {{"test.a"}, {}});
  ASSERT_EQ(s.rejected.size(), 3u);
  EXPECT_EQ(s.rejected[0].kernel, "test.a.slow");
  EXPECT_EQ(s.rejected[1].kernel, "test.a.fast");
  EXPECT_EQ(s.rejected[2].kernel, "test.b.fastest");
}

TEST(Choice, WithoutAnAbleKernelTheErrorNamesRequestSourceReasonAndRemedy) {
  try {
    Among(100, {{"cuda", "test.a"}, {"test.a.slow", "test.a.fast"}}, "REGARD_BACKENDS");
    FAIL() << "selected";
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), "kernel");
    EXPECT_EQ(e.value(), "cuda,test.a but test.a.slow,test.a.fast (REGARD_BACKENDS)");
    for (const char* part : {"cuda: this build has no such kernel", "test.a.short: seq_q 100, needs < 16 (prefill rows take it)",
                             "test.a.slow and 1 more: excluded by choice (take it out of REGARD_BACKENDS)"}) {
      EXPECT_NE(e.expected().find(part), std::string::npos) << part << "\n" << e.expected();
    }
    EXPECT_EQ(e.expected().find("test.b"), std::string::npos) << "not asked for: " << e.expected();
  }
}

TEST(Choice, ForwardRowsRefuseBackwardWithReasonAndRemedy) {
  DeviceCaps everything;
  everything.isas = {Isa::kScalar, Isa::kNeon, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};
  for (const char* type : {"f32", "f16", "bf16"}) {
    const Problem p = ParseProblem(std::string("backward sq=64 skv=64 dtype=") + type);
    for (const KernelInfo* kernel : AllKernels()) {
      const std::string name = kernel->name;
      const std::string phase = name.substr(0, name.rfind('.'));
      if (!name.ends_with(std::string(".") + type) || phase.ends_with(".backward")) continue;
      if (kernel->device != DeviceType::kCpu) continue;
      const Verdict verdict = kernel->supports(*kernel, p, everything);
      EXPECT_FALSE(verdict.accepted) << name;
      EXPECT_EQ(verdict.Said(everything).reason, "phase backward, needs a forward phase") << name;
      EXPECT_NE(verdict.Said(everything).remedy.find("backward kernels"), std::string::npos) << name;
    }
  }
}

TEST(Choice, BackwardOfAForwardKernelAloneIsAnErrorWithItsReason) {
  try {
    Select(ParseProblem("backward sq=64 skv=64 dtype=f32"), DeviceCaps{}, {{"cpu.scalar.prefill"}, {}});
    FAIL() << "selected";
  } catch (const Error& e) {
    EXPECT_NE(e.expected().find("phase backward, needs a forward phase"), std::string::npos) << e.expected();
  }
}

TEST(Choice, TheReferenceTakesEveryBackwardProblem) {
  for (const char* words : {"d=64 dtype=f32", "d=1 dv=512 dtype=bf16 causal window=9,0 softcap=4 alibi bias dbias mask sink "
                            "dsink leftpad qoffset dropout=0.5 dlse grad=f32 varlen"}) {
    const Selection s =
        Select(ParseProblem(std::string("backward sq=64 skv=64 ") + words), DeviceCaps{}, {{"reference"}, {}});
    EXPECT_EQ(s.kernel, "reference");
  }
}

TEST(Choice, PatternsEndAtDots) {
  EXPECT_TRUE(MatchesPattern("cpu", "cpu.avx512.decode.f32"));
  EXPECT_TRUE(MatchesPattern("cpu.avx512", "cpu.avx512.decode.f32"));
  EXPECT_TRUE(MatchesPattern("reference", "reference"));
  EXPECT_FALSE(MatchesPattern("cpu.avx512", "cpu.avx512_bf16.decode.bf16"));
  EXPECT_FALSE(MatchesPattern("cpu.avx512.decode.f32", "cpu.avx512"));
  EXPECT_FALSE(MatchesPattern("", "cpu.avx512"));
}

TEST(Choice, TheEnvironmentGivesPrioritiesAndExclusions) {
  std::string warnings;
  EnvSettings settings;
  settings.backends = {"cpu.scalar", "-reference", "cuda"};
  const KernelChoice choice = ChoiceOf(settings, &warnings);
  EXPECT_EQ(choice, (KernelChoice{{"cpu.scalar", "cuda"}, {"reference"}}));
  EXPECT_EQ(warnings, "");
  EXPECT_EQ(ChoiceOf({}, &warnings), KernelChoice{});
}

TEST(Choice, UnknownPatternsOfTheEnvironmentAreNamedAndLeftOut) {
  std::string warnings;
  EnvSettings settings;
  settings.backends = {"-cpu.scaler", "qpu", "reference", "-"};
  EXPECT_EQ(ChoiceOf(settings, &warnings), (KernelChoice{{"reference"}, {}}));
  EXPECT_NE(warnings.find("REGARD_BACKENDS: -cpu.scaler matches no kernel"), std::string::npos) << warnings;
  EXPECT_NE(warnings.find("such as cpu.scalar"), std::string::npos) << warnings;
  EXPECT_NE(warnings.find("REGARD_BACKENDS: qpu "), std::string::npos) << warnings;
  EXPECT_NE(warnings.find("REGARD_BACKENDS: - "), std::string::npos) << warnings;
}

TEST(Choice, ForcingABackendThatThisBuildLacksIsAnErrorNotATypo) {
  try {
    Select(ParseProblem("decode sq=1 skv=64"), DeviceCaps{}, {{"opencl"}, {}});
    FAIL() << "selected";
  } catch (const Error& e) {
    EXPECT_EQ(e.value(), "opencl");
    EXPECT_NE(e.expected().find("this build has no such kernel"), std::string::npos);
  }
  EXPECT_EQ(Select(ParseProblem("decode sq=1 skv=64"), DeviceCaps{}, {{"opencl", "reference"}, {}}).kernel, "reference");
}

}  // namespace
}  // namespace regard
