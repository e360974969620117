// The choice itself, by name, under faked devices.
#include <gtest/gtest.h>

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/backend/kernel_info.h"

namespace regard {
namespace {

DeviceCaps FakeCaps(std::vector<Isa> isas, int threads = 2) {
  DeviceCaps c;
  c.name = "a faked CPU";
  c.isas = std::move(isas);
  c.threads = threads;
  return c;
}
DeviceCaps Everything() { return FakeCaps({Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}); }

Selection SelectCase(const std::string& text, const DeviceCaps& caps, const KernelChoice& choice = {}) {
  return Select(ParseProblem(text), caps, choice);
}

#if defined(__x86_64__)
TEST(Select, PicksByPhaseTypeAndInstructionSet) {
  const DeviceCaps avx2 = FakeCaps({Isa::kScalar, Isa::kAvx2}), avx512 = FakeCaps({Isa::kScalar, Isa::kAvx2, Isa::kAvx512});
  const DeviceCaps old = FakeCaps({Isa::kScalar}), all = Everything();
  const struct {
    const char* problem;
    const DeviceCaps* caps;
    const char* kernel;
  } cases[] = {
      {"decode b=4 sq=1 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 page=16", &all, "cpu.avx512_bf16.decode.bf16"},
      {"prefill sq=4096 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 causal", &all, "cpu.avx512_bf16.prefill.bf16"},
      {"prefill sq=4096 skv=4096 hq=32 hkv=8 d=128 dtype=f32", &all, "cpu.avx512.prefill.f32"},
      {"prefill sq=4096 skv=4096 d=128 dtype=f16", &all, "cpu.avx512.prefill.f16"},
      {"decode sq=15 skv=99 d=512 dtype=bf16 kv=f8e4m3", &all, "cpu.avx512_bf16.decode.bf16"},
      {"decode sq=1 skv=99 dtype=f8e4m3 kv=f8e4m3", &all, "cpu.avx512_bf16.decode.f8"},
      {"decode sq=1 skv=99 dtype=bf16 kv=f8e4m3 qv", &all, "cpu.avx512.decode.bf16"},
      {"decode sq=1 skv=99 dtype=bf16", &avx512, "cpu.avx512.decode.bf16"},
      {"decode sq=1 skv=99 dtype=bf16", &avx2, "cpu.avx2.decode.bf16"},
      {"prefill sq=99 skv=99 dtype=f16", &old, "cpu.scalar.prefill.f16"},
      {"mixed b=2 lens=1000,1000 qlens=1,1000 varlen dtype=f32", &all, "cpu.avx512.mixed.f32"},
      {"prefill sq=99 skv=99 dtype=f32 dropout=0.5", &all, "cpu.avx512.prefill.f32"},
      {"decode sq=1 skv=99 dtype=bf16 dropout=1", &all, "cpu.avx512_bf16.decode.bf16"},
  };
  for (const auto& c : cases) EXPECT_EQ(SelectCase(c.problem, *c.caps).kernel, c.kernel) << c.problem;
}

TEST(Select, RejectionsCarryReasonAndRemedy) {
  const Selection s = SelectCase("decode b=4 sq=1 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 page=16",
                                 FakeCaps({Isa::kScalar, Isa::kAvx2}));
  EXPECT_EQ(s.RejectionOf("cpu.avx512_bf16.decode.bf16").reason, "isa avx2, needs avx512_bf16");
  EXPECT_EQ(s.RejectionOf("cpu.avx512_bf16.decode.bf16").remedy, "runs where the CPU has avx512_bf16");
  EXPECT_EQ(s.RejectionOf("cpu.avx2.prefill.bf16").reason, "seq_q 1, needs >= 16");
  EXPECT_EQ(s.RejectionOf("cpu.avx2.decode.f32").reason, "dtype bf16, needs f32");
  EXPECT_TRUE(s.RejectionOf("reference").able);
  EXPECT_NE(s.RejectionOf("reference").reason.find("slower"), std::string::npos);
  EXPECT_EQ(s.rejected.size() + 1, AllKernels().size());
  EXPECT_THROW(s.RejectionOf("no.such"), Error);
}

TEST(Select, ForcingAnUnableKernelIsAnErrorThatCarriesItsReason) {
  try {
    SelectCase("decode sq=1 skv=64 dtype=f32", FakeCaps({Isa::kScalar}), {{"cpu.avx2.decode.f32"}, {}});
    FAIL() << "selected";
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), "kernel");
    EXPECT_EQ(e.value(), "cpu.avx2.decode.f32");
    EXPECT_NE(e.expected().find("isa scalar, needs avx2"), std::string::npos) << e.expected();
  }
}

// docs/semantics.md, "Determinism": under invariance the numerics id depends on dtype, head dims, options and device only.
TEST(Select, NumericsNeverChangeWithPhaseLengthsBatchPageOrLayout) {
  const std::vector<std::string> fixed = {"d=64 dtype=f32",  "d=128 dtype=bf16 causal", "d=80 dv=96 dtype=f16 softcap=3",
                                          "d=64 dtype=bf16 kv=f8e5m2 sink", "d=96 dtype=bf16 kv=f8e4m3 qv"};
  const std::vector<std::string> free = {
      "decode sq=1 skv=1 hq=4 hkv=2",         "decode b=64 sq=1 skv=100000 hq=4 hkv=2", "decode sq=15 skv=77 hq=4 hkv=2 page=1",
      "prefill sq=16 skv=16 hq=4 hkv=2",      "prefill b=3 sq=9000 skv=9000 hq=4 hkv=2", "prefill sq=128 skv=4096 hq=4 hkv=2 page=256 layout=HND",
      "prefill sq=5 skv=4096 hq=4 hkv=2",     "mixed b=2 qlens=1,64 lens=64,64 hq=4 hkv=2 varlen",
      "decode b=2 sq=1 skv=64 hq=4 hkv=2 page=16 table=csr", "prefill b=2 sq=64 skv=64 hq=4 hkv=2 varlen"};
  for (const DeviceCaps& caps : {Everything(), FakeCaps({Isa::kScalar, Isa::kAvx2}), FakeCaps({Isa::kScalar})}) {
    for (const std::string& options : fixed) {
      std::map<std::string, std::string> numerics;
      for (const std::string& shape : free) numerics[SelectCase(shape + " " + options, caps).numerics] = shape;
      EXPECT_EQ(numerics.size(), 1u) << options << ": " << numerics.begin()->first << " at " << numerics.begin()->second
                                     << ", " << numerics.rbegin()->first << " at " << numerics.rbegin()->second;
    }
  }
}
#endif

TEST(Select, PriorityAndExclusionsOfACall) {
  const DeviceCaps caps = FakeCaps({Isa::kScalar});
  const std::string problem = "decode sq=1 skv=64 dtype=f32";
  EXPECT_EQ(SelectCase(problem, caps).kernel, "cpu.scalar.decode.f32");
  EXPECT_EQ(SelectCase(problem, caps, {{"reference", "cpu"}, {}}).kernel, "reference");
  EXPECT_EQ(SelectCase(problem, caps, {{}, {"cpu.scalar"}}).kernel, "reference");
  EXPECT_EQ(SelectCase(problem, caps, {{}, {"cpu.scalar"}}).RejectionOf("cpu.scalar.decode.f32").reason, "excluded by choice");
  EXPECT_THROW(SelectCase(problem, caps, {{}, {"cpu", "reference"}}), Error);
}

TEST(Select, AnUnknownPatternIsAnErrorThatNamesTheNearest) {
  try {
    SelectCase("decode sq=1 skv=64", FakeCaps({Isa::kScalar}), {{"cpu.scaler"}, {}});
    FAIL() << "selected";
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), "kernel");
    EXPECT_NE(e.expected().find("cpu.scalar"), std::string::npos) << e.expected();
  }
  // A prefix ends at a dot.
  EXPECT_THROW(SelectCase("decode sq=1 skv=64", FakeCaps({Isa::kScalar}), {{"cpu.sca"}, {}}), Error);
}

TEST(Select, ScopesNestAndAreRestoredByExceptions) {
  const Problem p = ParseProblem("decode sq=1 skv=64 dtype=f32");
  const DeviceCaps caps = FakeCaps({Isa::kScalar});
  const auto chosen = [&] { return Select(p, caps).kernel; };
  const std::string before = chosen();
  {
    const ScopedKernelChoice outer({{"reference"}, {}});
    EXPECT_EQ(chosen(), "reference");
    try {
      const ScopedKernelChoice inner({{"cpu.scalar"}, {}});
      EXPECT_EQ(chosen(), "cpu.scalar.decode.f32");
      throw std::runtime_error("out of the scope");
    } catch (const std::runtime_error&) {
    }
    EXPECT_EQ(chosen(), "reference");
    EXPECT_EQ(Select(p, caps, KernelChoice{{"cpu"}, {}}).kernel, "cpu.scalar.decode.f32");  // a call's own choice wins
    EXPECT_THROW(ScopedKernelChoice({{"nonsense"}, {}}), Error);
    EXPECT_EQ(chosen(), "reference");
  }
  EXPECT_EQ(chosen(), before);
}

TEST(Select, TheEnvironmentChooses) {
  const auto child = [](const char* backends) {
    setenv("REGARD_BACKENDS", backends, 1);
    const Selection s = Select(ParseProblem("decode sq=1 skv=64 dtype=f32"), FakeCaps({Isa::kScalar}));
    std::fprintf(stderr, "chose %s\n", s.kernel.c_str());
    std::exit(0);
  };
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(child("reference,cpu"), ::testing::ExitedWithCode(0), "chose reference");
  EXPECT_EXIT(child("cpu"), ::testing::ExitedWithCode(0), "chose cpu.scalar");
  EXPECT_EXIT(child("refrence,reference"), ::testing::ExitedWithCode(0),
              "REGARD_BACKENDS: refrence matches no kernel.*such as reference(.|\n)*chose reference");
}

TEST(Select, IllegalProblemsAreRefused) {
  Problem p = ParseProblem("decode sq=1 skv=64");
  p.heads_kv = 0;
  EXPECT_THROW(Select(p, FakeCaps({Isa::kScalar})), Error);
}

}  // namespace
}  // namespace regard
