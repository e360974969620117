// REGARD_TUNE: what it takes, what it refuses, what a tuned plan says of itself, and that tuned results are right.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "regard/regard.h"
#include "src/cpu/params.h"
#include "src/cpu/tune.h"
#include "tests/support/tuned.h"

namespace regard {
namespace {

using cpu::Tuning;
using cpu::TuningFor;
using testing::Tuned;

// The error's value and expectation, "none" where nothing is refused.
std::pair<std::string, std::string> Refusal(const char* text) {
  try {
    TuningFor(text);
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), "REGARD_TUNE");
    return {e.value(), e.expected()};
  }
  return {"none", ""};
}

TEST(Tune, WithoutTextEverySettingIsADefault) {
  const Tuning t = TuningFor("");
  EXPECT_EQ(t[Tuning::kTaskRows], cpu::kTaskRows);
  EXPECT_EQ(t[Tuning::kBlock], cpu::kBlockTokens);
  EXPECT_EQ(t[Tuning::kSplit], cpu::kSplitTokens);
  EXPECT_TRUE(t.HasDefaultNumerics());
  for (const PlanSetting& s : SettingsOf(t)) EXPECT_EQ(s.source, "default") << s.name;
}

TEST(Tune, SpacesAndCommasSeparateSettings) {
  for (const char* text : {"task_rows=192 min_task_rows=48 share=1000 block=256 split=512 prefetch=3 keep=5",
                           " keep=5 split=512,block=256,,prefetch=3, share=1000 min_task_rows=48\ttask_rows=192 "}) {
    const Tuning t = TuningFor(text);
    EXPECT_EQ(t[Tuning::kTaskRows], 192);
    EXPECT_EQ(t[Tuning::kMinTaskRows], 48);
    EXPECT_EQ(t[Tuning::kShare], 1000);
    EXPECT_EQ(t[Tuning::kBlock], 256);
    EXPECT_EQ(t[Tuning::kSplit], 512);
    EXPECT_EQ(t[Tuning::kPrefetch], 3);
    EXPECT_EQ(t[Tuning::kKeep], 5);
    EXPECT_FALSE(t.HasDefaultNumerics());
    for (const PlanSetting& s : SettingsOf(t)) EXPECT_EQ(s.source, "REGARD_TUNE") << s.name;
  }
}

TEST(Tune, RefusesWhatItDoesNotUnderstandAndNamesWhatItKnows) {
  EXPECT_EQ(Refusal("blocks=256").first, "blocks=256");
  EXPECT_EQ(Refusal("blocks=256").second,
            "name=value with one of task_rows, min_task_rows, share, block, split, prefetch, keep (nearest: block)");
  EXPECT_EQ(Refusal("prefetch=3 block").first, "block");
  EXPECT_EQ(Refusal("share=many").second, "a whole number, 0 to 281474976710656");
  EXPECT_EQ(Refusal("share=").first, "share=");
  EXPECT_EQ(Refusal("block=576").second, "a multiple of 64, 64 to 512");
  EXPECT_EQ(Refusal("block=100").first, "block=100");
  EXPECT_EQ(Refusal("prefetch=-1").first, "prefetch=-1");
  EXPECT_EQ(Refusal("prefetch=5").second, "a whole number, 0 to 4");
  EXPECT_EQ(Refusal("prefetch=99999999999999999999").first, "prefetch=99999999999999999999");
  EXPECT_EQ(Refusal("task_rows=100").first, "task_rows=100");
  EXPECT_EQ(Refusal(("task_rows=" + std::to_string(cpu::kTaskRows + 24)).c_str()).second,
            "a multiple of 24, 24 to " + std::to_string(cpu::kTaskRows));
  EXPECT_EQ(Refusal("block=64 block=64").second, "block once");
}

TEST(Tune, RefusesValuesThatDoNotGoTogether) {
  EXPECT_EQ(Refusal("split=768").second, "a multiple of block, 512");
  EXPECT_EQ(Refusal("block=384").first, "split=1024");
  EXPECT_EQ(Refusal("block=384 split=768").first, "none");
  EXPECT_EQ(Refusal("task_rows=48").second, "at most task_rows, 48");
  EXPECT_EQ(Refusal("task_rows=48 min_task_rows=24").first, "none");
}

TEST(Tune, APlanReadsTheVariableWhenItIsMadeAndRefusesABadOne) {
  const Problem p = ParseProblem("decode sq=1 skv=3000 hq=4 hkv=2 d=64 dtype=f32");
  const Tuned tuned("block=256 nonsense");
  EXPECT_THROW(Plan{p}, Error);
  EXPECT_NO_THROW(Plan(p, Select(p, DeviceCaps::Host(), {{"reference"}, {}})));  // has no settings
}

TEST(Tune, SchedulingSettingsKeepNumericsAndInvariance) {
  const Problem p = ParseProblem("prefill sq=200 skv=300 hq=4 hkv=2 d=64 dtype=f32");
  const Tuned tuned("task_rows=48 min_task_rows=24 share=0 prefetch=2");
  const Plan plan(p);
  EXPECT_EQ(plan.selection().numerics, Select(p, DeviceCaps::Host()).numerics);
  EXPECT_EQ(plan.problem(), p);
  EXPECT_EQ(plan.shape().rows_per_task, 48);
}

TEST(Tune, BlocksAndSplitsGiveThePlanItsOwnNumericsAndNoInvariance) {
  const Problem p = ParseProblem("decode sq=1 skv=3000 hq=4 hkv=2 d=64 dtype=f32");
  const Selection s = Select(p, DeviceCaps::Host());
  const auto numerics = [&](const char* text) {
    const Tuned tuned(text);
    const Plan plan(p, s);
    EXPECT_EQ(plan.problem().options.invariance, Invariance::kNone) << text;
    return plan.selection().numerics;
  };
  const std::string prefix = s.numerics.substr(0, s.numerics.find(".block"));
  EXPECT_EQ(numerics("block=256 split=512"), prefix + ".block256.split512");
  EXPECT_EQ(numerics("split=2048"), prefix + ".block512.split2048");
  EXPECT_EQ(numerics("block=64"), prefix + ".block64.split1024");
  const Tuned same("block=512 split=1024");
  EXPECT_EQ(Plan(p, s).selection().numerics, s.numerics);
  EXPECT_EQ(Plan(p, s).problem(), p);
}

TEST(Tune, ExplainShowsEachSettingAndWhereItComesFrom) {
  const Problem p = ParseProblem("decode sq=1 skv=3000 hq=4 hkv=2 d=64 dtype=f32");
  const Selection s = Select(p, DeviceCaps::Host());
  const Tuned tuned("block=256,prefetch=3");
  const Plan plan(p, s);
  const std::string text = ExplainText(p, DeviceCaps::Host(), &plan, s);
  EXPECT_NE(text.find("; block 256, prefetch 3 (REGARD_TUNE)\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\nsettings  task_rows "), std::string::npos) << text;
  EXPECT_NE(text.find(", split 1024, keep 64 (default)"), std::string::npos) << text;
  EXPECT_NE(text.find(".block256.split1024, invariance none (REGARD_TUNE changes the numerics)\n"), std::string::npos)
      << text;
  const std::string json = ExplainJson(p, DeviceCaps::Host(), &plan, s);
  EXPECT_NE(json.find(R"("block":{"value":256,"source":"REGARD_TUNE"})"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("split":{"value":1024,"source":"default"})"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("invariance":"none")"), std::string::npos) << json;
}

// Runs the case on every instruction set under `text`; the bytes of each output. `check`: held to the accuracy rule.
std::vector<std::vector<char>> OutputsUnder(const char* text, const std::string& problem, bool check) {
  std::vector<std::vector<char>> all;
  for (Isa isa : DeviceCaps::Host().isas) {
    if (isa == Isa::kAvx512Bf16 && problem.find("bf16") == std::string::npos) continue;
    all.push_back(testing::OutputUnder(text, problem, isa, 2, check));
  }
  return all;
}

const char* const kProblems[] = {
    "mixed b=4 qlens=1,70,15,200 lens=3000,700,15,2100 varlen hq=4 hkv=2 d=64 dtype=bf16 page=16 causal lse",
    "decode b=3 sq=3 skv=2600 hq=6 hkv=2 d=72 dtype=f32 lens=2600,1,900 lse window=1500,",
    "prefill b=1 sq=150 skv=1300 hq=4 hkv=2 d=64 dtype=f16 causal softcap=5 lse"};

TEST(Tune, SchedulingSettingsChangeNoBit) {
  for (const char* problem : kProblems) {
    const auto plain = OutputsUnder("", problem, false);
    EXPECT_EQ(plain, OutputsUnder("task_rows=24 min_task_rows=24 share=0", problem, false));
    EXPECT_EQ(plain, OutputsUnder("task_rows=192 share=281474976710656 prefetch=0", problem, false));
    for (const char* text : {"prefetch=1", "prefetch=2", "prefetch=4"}) {
      EXPECT_EQ(plain, OutputsUnder(text, problem, false)) << text << " " << problem;
    }
  }
}

TEST(Tune, ResultsUnderOtherBlocksAndSplitsKeepTheAccuracyRule) {
  for (const char* problem : kProblems) {
    for (const char* text :
         {"block=256", "block=128 split=256", "block=64 split=64", "block=128 split=640", "split=4096",
          "block=320 split=320"}) {
      OutputsUnder(text, problem, true);
    }
  }
}

// Whether `text` gives the output other bits than the defaults do, on every instruction set.
bool EveryInstructionSetRoundsOtherwise(const char* text, const std::string& problem) {
  const auto plain = OutputsUnder("", problem, false), tuned = OutputsUnder(text, problem, false);
  for (std::size_t n = 0; n < plain.size(); ++n) {
    if (plain[n] == tuned[n]) return false;
  }
  return true;
}

TEST(Tune, KernelsComputeWithTheBlocksAndSplitsOfThePlan) {
  for (const char* problem : {"decode b=1 sq=1 skv=3000 hq=4 hkv=2 d=64 dtype=f32",
                              "prefill b=1 sq=150 skv=3000 hq=4 hkv=2 d=64 dtype=f32 causal"}) {
    EXPECT_TRUE(EveryInstructionSetRoundsOtherwise("block=128 split=256", problem)) << problem;
    EXPECT_TRUE(EveryInstructionSetRoundsOtherwise("block=128", problem)) << problem;
    EXPECT_TRUE(EveryInstructionSetRoundsOtherwise("split=2048", problem)) << problem;
  }
}

TEST(Tune, OtherBlocksAndSplitsChangeNoBitOfACaseThatFitsIntoOne) {
  for (const char* problem : {"decode b=1 sq=1 skv=60 hq=4 hkv=2 d=64 dtype=f32",
                              "prefill b=1 sq=60 skv=60 hq=4 hkv=2 d=64 dtype=f32 causal"}) {
    EXPECT_EQ(OutputsUnder("", problem, false), OutputsUnder("block=64 split=64", problem, false)) << problem;
  }
}

TEST(Tune, DecodeAndPrefillAgreeToTheBitUnderOtherBlocksAndSplits) {
  const char* const text = "block=128 split=256";
  EXPECT_EQ(OutputsUnder(text, "prefill b=1 sq=1 skv=3000 hq=4 hkv=2 d=64 dtype=f32", true),
            OutputsUnder(text, "decode b=1 sq=1 skv=3000 hq=4 hkv=2 d=64 dtype=f32", true));
}

}  // namespace
}  // namespace regard
