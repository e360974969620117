// The reference as a row of the kernel table.
#include <gtest/gtest.h>

#include "src/backend/kernel_info.h"
#include "tests/reference/toy.h"

namespace regard::reference {
namespace {

using Index = std::int64_t;

const KernelInfo& Row() {
  return ReferenceKernels()[0];
}

TEST(ReferenceKernel, IsTheOnlyRowAndIsCalledReference) {
  ASSERT_EQ(ReferenceKernels().size(), 1u);
  EXPECT_STREQ(Row().name, "reference");
}

TEST(ReferenceKernel, TakesEveryPhase) {
  Problem p;
  for (const Phase phase : {Phase::kPrefill, Phase::kDecode, Phase::kMixed, Phase::kBackward}) {
    p.phase = phase;
    EXPECT_TRUE(Row().supports(Row(), p, {}).accepted);
  }
}

TEST(ReferenceKernel, CostCountsVisiblePairsOnly) {
  Problem p;
  p.seq_q = p.seq_kv = 128;
  const Cost full = Row().cost(Row(), p, {});
  EXPECT_EQ(full.flops, 2.0 * 128 * 128 * 128);
  EXPECT_EQ(full.bytes, 4.0 * 128 * 64 * 4);
  p.options.causal = true;
  EXPECT_EQ(Row().cost(Row(), p, {}).flops, 2.0 * (128 * 129 / 2) * 128);
  EXPECT_GT(full.seconds, Row().cost(Row(), p, {}).seconds);
}

TEST(ReferenceKernel, CostOfBackwardCountsFiveProducts) {
  Problem p = ParseProblem("backward sq=128 skv=128 hq=2 d=64 dv=32 dtype=bf16 grad=f32");
  const Cost cost = Row().cost(Row(), p, {});
  EXPECT_EQ(cost.flops, 2.0 * 128 * 128 * 2 * (3 * 64 + 2 * 32));
  EXPECT_EQ(cost.bytes, 128.0 * 2 * (2 * (64 + 64 + 32 + 32 + 32) + 4 * (64 + 64 + 32)));  // q k v out dout; dq dk dv
}

void LaunchRow(Toy& t) {
  const KernelPlan plan = Row().plan(Row(), t.p, {}, 1);
  Row().launch({t.p, t.args, t.sequences, plan, DefaultExecutor(), {}});
}

TEST(ReferenceKernel, LaunchAppendsThenAttendsAndWritesEveryRow) {
  Toy t(2, 3, 6, 4, 2, 3, 5);
  t.args.k_new = t.Random({2, 1, 2, 3});
  t.args.v_new = t.Random({2, 1, 2, 5});
  t.args.lse = t.Random({2, 4, 3});
  std::fill_n(static_cast<float*>(t.args.out.data), t.args.out.Elements(), kNanF);
  for (Sequence& s : t.sequences) s.append_begin = 5, s.append_count = 1;
  t.sequences[1].seq_q = 2;
  LaunchRow(t);
  EXPECT_EQ(*t.args.k.At<float>(1, 5, 1, 2), *t.args.k_new->At<float>(1, 0, 1, 2));
  const Result r = t.Run();  // over the stored keys
  for (Index n = 0; n < t.args.out.Elements(); ++n) {
    EXPECT_EQ(static_cast<float*>(t.args.out.data)[n], static_cast<float>(r.out[n]));
  }
  for (Index n = 0; n < 24; ++n) EXPECT_EQ(static_cast<float*>(t.args.lse->data)[n], static_cast<float>(r.lse[n]));
  EXPECT_EQ(*t.args.out.At<float>(1, 2, 3, 4), 0);
  EXPECT_EQ(*t.args.lse->At<float>(1, 3, 2), -std::numeric_limits<float>::infinity());
}

// out = 1 + 2^-8 + 2^-33: just above the tie between the bf16 neighbours 1 and 1 + 2^-7, where a stop at f32 on the way
// would land on the tie and go down to even.
TEST(ReferenceKernel, LaunchRoundsOnce) {
  Toy t(1, 1, 2, 1, 1, 1, 1);
  t.p.options.scale = 0;  // the mean of the two values
  t.args.v = t.Floats({2, std::ldexp(1.0f, -7) + std::ldexp(1.0f, -30)}, {1, 2, 1, 1});
  t.args.out = t.As(t.args.out, DType::kBF16);
  t.p.out_dtype = DType::kBF16;
  LaunchRow(t);
  EXPECT_EQ(LoadFloat(t.args.out.data, DType::kBF16, 0), 1 + std::ldexp(1.0f, -7));
}

}  // namespace
}  // namespace regard::reference
