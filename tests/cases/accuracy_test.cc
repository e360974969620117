// The accuracy rule itself: it passes the reference, and each planted error fails it.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "regard/plan.h"
#include "src/backend/kernel_info.h"
#include "src/cases/cases.h"
#include "src/cases/oracle.h"

namespace regard::cases {
namespace {

// The case with its outputs from the reference kernel.
Case Computed(const std::string& text) {
  Case made = MakeCase(ParseProblem(text));
  const Selection selection = Select(made.problem(), DeviceCaps::Host(), {{"reference"}, {}});
  const Plan plan(made.problem(), selection);
  std::vector<std::byte> workspace(plan.workspace_bytes());
  Launch(plan, made.args(), {workspace.data(), workspace.size()});
  return made;
}

Accuracy Judge(const Case& made, std::int64_t rows = 0) { return CheckAccuracy(made.problem(), made.args(), rows); }

const char kCase[] = "prefill lens=40,17 qlens=12,7 hq=4 hkv=2 d=16 dtype=f32 causal lse";

TEST(CheckAccuracy, TheReferencePasses) {
  for (const char* text : {kCase, "decode lens=30,0,5 sq=1 hq=2 hkv=1 d=8 dtype=bf16 kv=f8e4m3 page=4 lse",
                           "prefill sq=9 skv=9 hq=2 hkv=2 d=8 dtype=f16 varlen softcap=3 lse seed=2",
                           "prefill sq=0 skv=9 hq=2 hkv=2 d=8 dtype=f16 lse", "prefill sq=4 skv=0 hq=2 hkv=2 d=8 dtype=f32 sink lse"}) {
    const Accuracy accuracy = Judge(Computed(text));
    EXPECT_TRUE(accuracy.ok()) << text << ": " << accuracy.where;
    EXPECT_LE(accuracy.ratio(), 1) << text;
  }
}

TEST(CheckAccuracy, UntouchedOutputFails) {
  const Accuracy accuracy = Judge(MakeCase(ParseProblem(kCase)));
  EXPECT_FALSE(accuracy.ok());
  EXPECT_TRUE(accuracy.nan_mismatch);
  EXPECT_EQ(accuracy.ratio(), std::numeric_limits<double>::infinity());
}

TEST(CheckAccuracy, OneWrongElementFailsAndIsNamed) {
  const Case made = Computed(kCase);
  *made.args().out.At<float>(1, 6, 3, 15) += 1e-3f;
  const Accuracy accuracy = Judge(made);
  EXPECT_FALSE(accuracy.ok());
  EXPECT_EQ(accuracy.where.rfind("out b=1 h=3 i=6 c=15: got ", 0), 0u) << accuracy.where;
  EXPECT_NEAR(accuracy.out_error, 1e-3, 1e-5);
}

TEST(CheckAccuracy, WrongLseFails) {
  const Case made = Computed(kCase);
  *made.args().lse->At<float>(0, 2, 11) += 1e-2f;
  const Accuracy accuracy = Judge(made);
  EXPECT_FALSE(accuracy.ok());
  EXPECT_EQ(accuracy.where.rfind("lse b=0 h=2 i=11: got ", 0), 0u) << accuracy.where;
}

TEST(CheckAccuracy, RowsThatNoSequenceOwnsMustBeExactlyEmpty) {
  Case made = Computed(kCase);
  *made.args().out.At<float>(1, 9, 0, 0) = 1e-7f;  // sequence 1 has 7 queries
  EXPECT_FALSE(Judge(made).ok());
  *made.args().out.At<float>(1, 9, 0, 0) = 0;
  EXPECT_TRUE(Judge(made).ok());
  *made.args().lse->At<float>(1, 0, 9) = 0;  // not -inf
  EXPECT_FALSE(Judge(made).ok());

  const Case packed = Computed("prefill qlens=5,3 lens=5,3 hq=2 hkv=1 d=8 dtype=f32 varlen lse seed=2");
  EXPECT_TRUE(Judge(packed).ok());
  const std::int64_t last = packed.args().out.shape[0] - 1;
  *packed.args().out.At<float>(last, 1, 0) = std::nanf("");
  EXPECT_FALSE(Judge(packed, 1).ok()) << "rows past cu_seqlens_q[B] are checked even when others are sampled";
}

TEST(CheckAccuracy, InfinityInPlaceOfANumberFails) {
  const Case made = Computed(kCase);
  *made.args().out.At<float>(0, 0, 0, 0) = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(Judge(made).nan_mismatch);
}

TEST(CheckAccuracy, NanThatTheReferenceHasTooPasses) {
  Case made = MakeCase(ParseProblem("prefill sq=3 skv=5 hq=1 hkv=1 d=4 dtype=f32 causal lse"));
  *made.args().k.At<float>(0, 4, 0, 0) = std::nanf("");  // only the last query sees key 4
  const Plan plan(made.problem(), Select(made.problem(), DeviceCaps::Host(), {{"reference"}, {}}));
  std::vector<std::byte> workspace(plan.workspace_bytes());
  Launch(plan, made.args(), {workspace.data(), workspace.size()});
  EXPECT_TRUE(Judge(made).ok()) << Judge(made).where;
  *made.args().out.At<float>(0, 2, 0, 0) = 0;
  EXPECT_TRUE(Judge(made).nan_mismatch);
}

TEST(CheckAccuracy, BoundFollowsTheRule) {
  // f32: the plain formula is as good as exact, so the absolute part decides; bf16: rounding decides.
  const Accuracy f32 = Judge(Computed("prefill sq=20 skv=50 hq=2 hkv=1 d=32 dtype=f32 lse"));
  EXPECT_GE(f32.out_bound, 1e-5);
  EXPECT_LT(f32.out_bound, 1.5e-5);
  EXPECT_LT(f32.lse_bound, 1e-4);
  const Accuracy bf16 = Judge(Computed("prefill sq=20 skv=50 hq=2 hkv=1 d=32 dtype=bf16 lse"));
  EXPECT_GT(bf16.out_bound, 1e-3);
  EXPECT_LT(bf16.out_bound, 5e-2);
  EXPECT_GE(bf16.lse_bound, 2e-4);
}

TEST(CheckAccuracy, SamplesFindAnErrorInEveryRow) {
  const Case made = Computed("prefill sq=300 skv=300 hq=2 hkv=1 d=8 dtype=f32");
  const Oracle oracle(made.problem(), made.args(), 16);
  EXPECT_EQ(oracle.rows(), 16);
  EXPECT_TRUE(oracle.Compare(made.args()).ok());
  for (std::int64_t n = 0; n < made.args().out.Elements(); ++n) static_cast<float*>(made.args().out.data)[n] += 0.01f;
  EXPECT_FALSE(oracle.Compare(made.args()).ok());
}

TEST(SampledRows, SmallCasesAreComparedWhole) {
  EXPECT_EQ(SampledRows(ParseProblem("prefill sq=128 skv=128 hq=4 hkv=2 d=64 dtype=f32")), 0);
  const std::int64_t rows = SampledRows(ParseProblem("prefill sq=8192 skv=8192 hq=32 hkv=8 d=128 dtype=bf16 causal"));
  EXPECT_GE(rows, 48);
  EXPECT_LE(rows, 1000);
}

}  // namespace
}  // namespace regard::cases
