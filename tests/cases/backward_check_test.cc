// The check of gradients fails on planted wrong kernels, each the reference with one mistake; and the oracle sees every
// kind of wrong element, in full and sampled.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "src/backend/kernel_info.h"
#include "src/cases/check.h"
#include "src/cases/grid.h"
#include "src/cases/oracle.h"

namespace regard::cases {
namespace {

const KernelInfo& Reference() { return ReferenceKernels()[0]; }

using LaunchFn = void (*)(const LaunchContext&);

void Run(const LaunchContext& c, const Problem& p, const BackwardArgs& call, std::span<const Sequence> sequences) {
  Reference().launch({p, call.forward, sequences, c.plan, c.executor, c.workspace, &call});
}

void Sound(const LaunchContext& c) { Reference().launch(c); }

void MaskOffByOne(const LaunchContext& c) {
  Problem p = c.problem;
  p.options.causal = false;
  p.options.window_right = 1;
  Run(c, p, *c.backward, c.sequences);
}

void ForgetsDlse(const LaunchContext& c) {
  BackwardArgs call = *c.backward;
  call.dlse.reset();
  Run(c, c.problem, call, c.sequences);
}

// Scales each of two factors by the scale.
void ScalesTwice(const LaunchContext& c) {
  Reference().launch(c);
  const TensorView& dk = c.backward->dk;
  for (std::int64_t n = 0; n < dk.Elements(); ++n) {
    StoreFloat(dk.data, dk.dtype, n, LoadFloat(dk.data, dk.dtype, n) * static_cast<float>(c.problem.Scale()));
  }
}

// Leaves the derivative of the softcap out.
void ForgetsTheCapsSlope(const LaunchContext& c) {
  Problem p = c.problem;
  p.options.softcap *= 100;
  Run(c, p, *c.backward, c.sequences);
}

void DropsTheLastKey(const LaunchContext& c) {
  std::vector<Sequence> sequences(c.sequences.begin(), c.sequences.end());
  for (Sequence& s : sequences) s.seq_kv = std::max<std::int64_t>(0, s.seq_kv - 1);
  Run(c, c.problem, *c.backward, sequences);
}

// Keeps every pair where the forward pass dropped some.
void ForgetsDropout(const LaunchContext& c) {
  Problem p = c.problem;
  p.options.dropout = 0;
  Run(c, p, *c.backward, c.sequences);
}

void LeavesDsinkUnwritten(const LaunchContext& c) {
  Reference().launch(c);
  if (c.backward->dsink) std::memset(c.backward->dsink->data, 0xff, 4);
}

// Leaves rubbish in rows that no sequence uses.
void LeavesPaddingUnwritten(const LaunchContext& c) {
  Reference().launch(c);
  const TensorView& dq = c.backward->dq;
  for (std::size_t b = 0; b < c.sequences.size(); ++b) {
    const Sequence& s = c.sequences[b];
    if (s.seq_q == s.rows) continue;
    StoreFloat(dq.rank == 3 ? dq.At(s.q_row + s.seq_q, 0) : dq.At(b, s.seq_q, 0), dq.dtype, 0, 1e-7f);
  }
}

void WritesNothing(const LaunchContext&) {}

// Sums dbias over the wrong rows.
void ShiftsDbias(const LaunchContext& c) {
  Reference().launch(c);
  if (!c.backward->dbias || c.backward->dbias->Elements() < 2) return;
  const TensorView& t = *c.backward->dbias;
  const float x = LoadFloat(t.data, t.dtype, 0);
  StoreFloat(t.data, t.dtype, 0, LoadFloat(t.data, t.dtype, 1));
  StoreFloat(t.data, t.dtype, 1, x);
}

CheckReport Check(const std::vector<std::string>& texts, LaunchFn launch, CheckOptions options = {}) {
  KernelInfo kernel = Reference();
  kernel.name = "planted";
  kernel.launch = launch;
  const KernelInfo* const row = &kernel;
  std::vector<Problem> problems;
  for (const std::string& text : texts) problems.push_back(ParseProblem(text));
  return RunCheck(problems, {&row, 1}, options);
}

const std::string kPlain = "backward sq=20 skv=40 hq=4 hkv=2 d=16 dtype=f32 causal dlse";

TEST(BackwardCheck, ASoundKernelPassesInEveryType) {
  for (const char* type : {"f32", "f16", "bf16"}) {
    for (const char* words : {"", " varlen", " grad=f32", " bias dbias sink dsink softcap=4 dropout=0.3 dlse leftpad"}) {
      const CheckReport report = Check({std::string("backward lens=30,0,17 qlens=20,4,17 hq=4 hkv=2 d=24 dv=9 causal dtype=") + type + words + " seed=2"}, Sound);
      EXPECT_TRUE(report.ok()) << report.misses.front().what << "\n" << report.misses.front().problem;
    }
  }
}

TEST(BackwardCheck, PlantedKernelsFailAndPrintTheirCase) {
  const struct {
    LaunchFn launch;
    std::string text;
    const char* tensor;
  } planted[] = {{MaskOffByOne, kPlain, ""},
                 {ForgetsDlse, kPlain, ""},
                 {ScalesTwice, kPlain, "dk"},
                 {DropsTheLastKey, kPlain, ""},
                 {WritesNothing, kPlain, "dq"},
                 {ForgetsTheCapsSlope, "backward sq=20 skv=40 hq=4 hkv=2 d=16 dtype=f32 softcap=2 qscale=4", ""},
                 {ForgetsDropout, "backward sq=20 skv=40 hq=4 hkv=2 d=16 dtype=bf16 dropout=0.4", ""},
                 {LeavesDsinkUnwritten, "backward sq=20 skv=40 hq=4 hkv=2 d=16 dtype=bf16 sink dsink", "dsink"},
                 {ShiftsDbias, "backward sq=20 skv=40 hq=4 hkv=2 d=16 dtype=f32 bias dbias", "dbias"},
                 {LeavesPaddingUnwritten, "backward qlens=3,7 skv=9 hq=2 hkv=1 d=16 dtype=f32", "dq"}};
  for (const auto& plant : planted) {
    const CheckReport report = Check({plant.text}, plant.launch);
    ASSERT_EQ(report.misses.size(), 1u) << plant.text;
    EXPECT_EQ(ParseProblem(report.misses[0].problem), ParseProblem(plant.text));
    EXPECT_EQ(report.misses[0].what.rfind(plant.tensor, 0), 0u) << report.misses[0].what;
    EXPECT_NE(report.misses[0].what.find("expected"), std::string::npos) << report.misses[0].what;
  }
}

TEST(BackwardCheck, TheQuickGridCatchesPlantedKernels) {
  std::vector<Problem> grid;
  for (const Problem& p : Grid(GridSize::kQuick)) {
    const bool small = p.seq_q * p.seq_kv * p.heads_q * p.head_dim <= 500'000;
    if (p.phase == Phase::kBackward && (small || !p.qlens.empty())) grid.push_back(p);
  }
  EXPECT_GT(grid.size(), 20u);
  const std::pair<const char*, LaunchFn> planted[] = {
      {"mask off by one", MaskOffByOne},      {"no dlse", ForgetsDlse},        {"scales twice", ScalesTwice},
      {"slope of the cap", ForgetsTheCapsSlope}, {"last key", DropsTheLastKey}, {"dropout", ForgetsDropout},
      {"dsink", LeavesDsinkUnwritten},        {"dbias", ShiftsDbias},          {"padding", LeavesPaddingUnwritten}};
  for (const auto& [name, launch] : planted) {
    KernelInfo kernel = Reference();
    kernel.name = "planted";
    kernel.launch = launch;
    const KernelInfo* const row = &kernel;
    std::size_t missed = 0;
    CheckOptions options;  // the first miss is enough
    options.progress = [&](std::size_t, std::size_t, std::size_t misses) { missed = misses; };
    options.interrupted = [&] { return missed > 0; };
    RunCheck(grid, {&row, 1}, options);
    EXPECT_GT(missed, 0u) << name;
  }
}

TEST(BackwardCheck, CrossHoldsEqualNumericsToEqualBits) {
  KernelInfo a = Reference(), b = Reference();
  a.name = "a", b.name = "b";
  a.numerics = b.numerics = "n";
  b.launch = [](const LaunchContext& c) {
    Reference().launch(c);
    *static_cast<std::uint32_t*>(c.backward->dv.data) ^= 1;
  };
  const KernelInfo* const rows[] = {&a, &b};
  const Problem p = ParseProblem(kPlain);
  CheckOptions cross;
  cross.cross = true;
  const CheckReport report = RunCheck({&p, 1}, rows, cross);
  ASSERT_EQ(report.misses.size(), 1u);
  EXPECT_TRUE(report.misses[0].cross);
}

TEST(BackwardOracle, SeesAWrongElementOfEachGradient) {
  Case made = MakeCase(ParseProblem("backward b=2 sq=9 skv=12 hq=4 hkv=2 d=8 dtype=f32 bias dbias sink dsink dlse"));
  const BackwardOracle oracle(made.problem(), made.call());
  const Plan plan(made.problem(), Select(made.problem(), DeviceCaps::Host(), {{"reference"}, {}}));
  std::vector<std::byte> workspace(plan.workspace_bytes());
  LaunchCall(plan, made.call(), {workspace.data(), workspace.size()});
  EXPECT_TRUE(oracle.Compare(made.call()).ok());
  const BackwardArgs& call = made.call();
  for (const auto& [name, view] : {std::pair{"dq", &call.dq}, {"dk", &call.dk}, {"dv", &call.dv}, {"dbias", &*call.dbias},
                                   {"dsink", &*call.dsink}}) {
    for (const std::int64_t n : {std::int64_t{0}, view->Elements() / 2, view->Elements() - 1}) {
      float& x = static_cast<float*>(view->data)[n];
      const float before = x;
      for (const float wrong : {before + 1e-2f, std::numeric_limits<float>::quiet_NaN()}) {
        x = wrong;
        const Accuracy accuracy = oracle.Compare(call);
        EXPECT_FALSE(accuracy.ok()) << name << "[" << n << "]";
        EXPECT_GT(accuracy.ratio(), 1);
        EXPECT_EQ(accuracy.where.rfind(name, 0), 0u) << accuracy.where;
      }
      x = before;
    }
  }
}

TEST(BackwardOracle, SamplesAgreeWithTheWholeAndSeeAWrongTensor) {
  const char* text = "backward b=2 sq=40 skv=60 hq=6 hkv=3 d=16 dtype=bf16 causal bias dbias sink dsink dlse varlen seed=3";
  Case made = MakeCase(ParseProblem(text));
  const Plan plan(made.problem(), Select(made.problem(), DeviceCaps::Host(), {{"reference"}, {}}));
  std::vector<std::byte> workspace(plan.workspace_bytes());
  LaunchCall(plan, made.call(), {workspace.data(), workspace.size()});
  const BackwardOracle sampled(made.problem(), made.call(), 16);
  EXPECT_GE(sampled.rows(), 8);
  EXPECT_LT(sampled.rows(), 2 * 40 * 6);
  const Accuracy good = sampled.Compare(made.call());
  EXPECT_TRUE(good.ok()) << good.where;
  ASSERT_EQ(good.gradients.size(), 5u);
  const BackwardArgs& call = made.call();
  for (const TensorView* view : {&call.dq, &call.dk, &call.dv, &*call.dbias, &*call.dsink}) {
    std::vector<std::byte> before(static_cast<std::size_t>(view->Elements()) * SizeOf(view->dtype));
    std::memcpy(before.data(), view->data, before.size());
    for (std::int64_t n = 0; n < view->Elements(); ++n) {
      StoreFloat(view->data, view->dtype, n, LoadFloat(view->data, view->dtype, n) + 0.25f);
    }
    EXPECT_FALSE(sampled.Compare(call).ok());
    std::memcpy(view->data, before.data(), before.size());
  }
  EXPECT_TRUE(sampled.Compare(call).ok());
}

TEST(MakeCaseBackward, RowsThatNobodyUsesHoldNanInAllThatIsRead) {
  const Case made = MakeCase(ParseProblem("backward qlens=3,7 lens=9,4 hq=2 hkv=1 d=8 dtype=f32 dlse seed=2"));
  const BackwardArgs& call = made.call();
  EXPECT_TRUE(std::isnan(*call.dout.At<float>(0, 3, 0, 0)));
  EXPECT_TRUE(std::isnan(*call.dlse->At<float>(0, 1, 5)));
  EXPECT_TRUE(std::isnan(*call.forward.out.At<float>(0, 3, 1, 2)));
  EXPECT_TRUE(std::isnan(*call.forward.lse->At<float>(0, 0, 3)));
  EXPECT_TRUE(std::isfinite(*call.forward.lse->At<float>(0, 0, 2)));
  EXPECT_TRUE(std::isnan(*call.dq.At<float>(0, 0, 0, 0))) << "outputs are poisoned";
}

TEST(MakeCaseBackward, ACopyOwnsItsGradients) {
  const Case made = MakeCase(ParseProblem("backward sq=5 skv=6 hq=2 hkv=1 d=8 dtype=f32 bias dbias sink dsink dlse"));
  Case copy = made.Clone();
  EXPECT_NE(copy.call().dq.data, made.call().dq.data);
  EXPECT_NE(copy.call().dbias->data, made.call().dbias->data);
  EXPECT_EQ(Checksum(copy.call().dout), Checksum(made.call().dout));
  EXPECT_EQ(Checksum(*copy.call().dlse), Checksum(*made.call().dlse));
}

}  // namespace
}  // namespace regard::cases
