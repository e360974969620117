// The backward calls: what they derive, allocate, refuse, and leave alone; that every kernel gives the same bits on any
// number of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/backend/kernel_info.h"
#include "src/cases/cases.h"

namespace regard {
namespace {

const char* const kCases[] = {
    "backward b=2 sq=40 skv=50 hq=6 hkv=2 d=24 dv=40 dtype=bf16 causal window=9,0 softcap=5 sink dsink dlse",
    "backward b=3 sq=17 skv=17 hq=4 hkv=4 d=64 dtype=f16 alibi grad=f32",
    "backward b=3 qlens=20,40,2 lens=70,40,2 varlen hq=4 hkv=2 d=33 dtype=f32 chunk=9 scale=0.5",
    "backward b=2 sq=3 skv=70 hq=4 hkv=1 d=64 dtype=f32 bias dbias mask leftpad qoffset dropout=0.25 causal"};

std::vector<float> Values(const TensorView& t) {
  std::vector<float> x(static_cast<std::size_t>(t.Elements()));
  for (std::size_t n = 0; n < x.size(); ++n) x[n] = LoadFloat(t.data, t.dtype, static_cast<std::int64_t>(n));
  return x;
}

CallControl Only(const char* kernel) {
  CallControl control;
  control.choice = KernelChoice{{kernel}, {}};
  return control;
}

TEST(BackwardApi, ProblemOfACallIsTheProblemThatMadeIt) {
  for (const char* text : kCases) {
    Problem given = ParseProblem(text);
    const cases::Case c = cases::MakeCase(given);
    Problem p = BackwardProblemOf(c.call(), given.options);
    given.lens = given.qlens = {};  // the generator's words
    given.mask_density = 0;
    EXPECT_EQ(Print(p), Print(given));
  }
}

TEST(BackwardApi, AllocatesGradientsInTheTypeOfTheInputs) {
  const cases::Case c = cases::MakeCase(ParseProblem(kCases[0]));
  BackwardArgs args = c.call();
  args.dq = args.dk = args.dv = {};
  const BackwardResult r = AttentionBackward(args, c.problem().options);
  EXPECT_EQ(r.dq.view().Describe(), args.forward.q.Describe());
  EXPECT_EQ(r.dk.view().Describe(), args.forward.k.Describe());
  EXPECT_EQ(r.dv.view().Describe(), args.forward.v.Describe());
  EXPECT_FALSE(r.selection.kernel.empty());
}

TEST(BackwardApi, AllocatesWhatIsAbsentInTheTypeOfWhatIsGiven) {
  const cases::Case c = cases::MakeCase(ParseProblem("backward sq=9 skv=12 hq=4 hkv=2 d=16 dtype=bf16 grad=f32"));
  BackwardArgs args = c.call();
  args.dk = args.dv = {};
  const BackwardResult r = AttentionBackward(args, c.problem().options);
  EXPECT_FALSE(r.dq.defined());
  EXPECT_EQ(r.dk.view().Describe(), "f32 (1, 12, 2, 16)");
  EXPECT_EQ(r.dv.view().dtype, DType::kF32);
}

TEST(BackwardApi, GradientsOfTheDefaultKernelObeyTheAccuracyRule) {
  for (const char* text : kCases) {
    cases::Case c = cases::MakeCase(ParseProblem(text));
    cases::PoisonOutputs(c.problem(), c.call());
    AttentionBackward(c.call(), c.problem().options);
    const cases::Accuracy accuracy = cases::CheckAccuracy(c.problem(), c.call());
    EXPECT_TRUE(accuracy.ok()) << text << "\n" << accuracy.where;
    EXPECT_GE(accuracy.gradients.size(), 3u);
  }
}

TEST(BackwardApi, EveryAbleKernelGivesTheSameBitsOnAnyNumberOfThreads) {
  for (const char* text : kCases) {
    cases::Case c = cases::MakeCase(ParseProblem(text));
    for (const KernelInfo* kernel : AllKernels()) {
      if (!kernel->supports(*kernel, c.problem(), DeviceCaps::Host()).accepted) continue;
      std::vector<std::vector<float>> first;
      for (const int threads : {1, 2, 3, 7}) {
        const std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kStdThread, threads));
        CallControl control = Only(kernel->name);
        control.executor = executor.get();
        cases::PoisonOutputs(c.problem(), c.call());
        AttentionBackward(c.call(), c.problem().options, control);
        std::vector<std::vector<float>> all = {Values(c.call().dq), Values(c.call().dk), Values(c.call().dv)};
        if (c.call().dbias) all.push_back(Values(*c.call().dbias));
        if (c.call().dsink) all.push_back(Values(*c.call().dsink));
        if (threads == 1) first = all;
        for (std::size_t t = 0; t < all.size(); ++t) {
          EXPECT_EQ(std::memcmp(all[t].data(), first[t].data(), all[t].size() * sizeof(float)), 0)
              << kernel->name << " tensor " << t << " on " << threads << " threads: " << text;
        }
      }
    }
  }
}

TEST(BackwardApi, WritesNothingWhenItRefuses) {
  cases::Case c = cases::MakeCase(ParseProblem(kCases[0]));
  BackwardArgs args = c.call();
  static_cast<std::uint8_t*>(args.dv.data)[0] = 42;
  const std::vector<float> before = Values(args.dq);
  args.dsink->shape[0] = 5;
  EXPECT_THROW(AttentionBackward(args, c.problem().options), Error);
  args = c.call();
  args.forward.lse.reset();
  EXPECT_THROW(AttentionBackward(args, c.problem().options), Error);
  const std::vector<float> after = Values(args.dq);
  EXPECT_EQ(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)), 0);
  EXPECT_EQ(static_cast<std::uint8_t*>(args.dv.data)[0], 42);
}

TEST(BackwardApi, InputsStayAsTheyAre) {
  cases::Case c = cases::MakeCase(ParseProblem(kCases[0]));
  const BackwardArgs& args = c.call();
  const auto sums = [&] {
    return std::vector<std::uint64_t>{cases::Checksum(args.forward.q),    cases::Checksum(args.forward.k),
                                      cases::Checksum(args.forward.v),    cases::Checksum(args.forward.out),
                                      cases::Checksum(*args.forward.lse), cases::Checksum(args.dout)};
  };
  const std::vector<std::uint64_t> before = sums();
  AttentionBackward(args, c.problem().options);
  EXPECT_EQ(sums(), before);
}

Error ErrorOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return Error("", "", "");
}

TEST(BackwardApi, RefusesWhatHasNoGradientByName) {
  cases::Case c = cases::MakeCase(ParseProblem("backward sq=9 skv=12 hq=4 hkv=2 d=16 dtype=f32"));
  const AttentionOptions options;
  BackwardArgs args = c.call();
  args.forward.score_mod.fn = [](const void*, float s, std::int64_t, std::int64_t, std::int64_t, std::int64_t) { return s; };
  EXPECT_EQ(ErrorOf([&] { AttentionBackward(args, options); }).field(), "scoremod");
  args = c.call();
  args.forward.mask_mod.fn = [](const void*, std::int64_t, std::int64_t, std::int64_t, std::int64_t) { return true; };
  EXPECT_EQ(ErrorOf([&] { AttentionBackward(args, options); }).field(), "maskmod");
  args = c.call();
  args.forward.qv = args.forward.out;
  EXPECT_EQ(ErrorOf([&] { AttentionBackward(args, options); }).field(), "qv");
  args = c.call();
  args.dbias = args.dq;
  EXPECT_EQ(ErrorOf([&] { AttentionBackward(args, options); }).field(), "dbias");
  args = c.call();
  args.dk.dtype = DType::kBF16;
  EXPECT_EQ(ErrorOf([&] { AttentionBackward(args, options); }).field(), "grad");
}

TEST(BackwardLaunch, APlanBoundsManyShorterCalls) {
  const Problem bounds = ParseProblem("backward b=4 sq=64 skv=64 hq=4 hkv=2 d=32 dtype=bf16 causal");
  const Plan plan(bounds);
  std::vector<std::byte> workspace(plan.workspace_bytes());
  for (const char* size : {"b=4 sq=64 skv=64", "b=1 sq=7 skv=64", "b=2 sq=64 skv=3", "b=0 sq=5 skv=5", "b=2 sq=0 skv=5"}) {
    cases::Case c = cases::MakeCase(ParseProblem(std::string("backward hq=4 hkv=2 d=32 dtype=bf16 causal ") + size));
    cases::PoisonOutputs(c.problem(), c.call());
    LaunchBackward(plan, c.call(), {workspace.data(), workspace.size()});
    EXPECT_TRUE(cases::CheckAccuracy(c.problem(), c.call()).ok()) << size;
  }
  cases::Case longer = cases::MakeCase(ParseProblem("backward hq=4 hkv=2 d=32 dtype=bf16 causal sq=65 skv=64"));
  EXPECT_EQ(ErrorOf([&] { LaunchBackward(plan, longer.call(), {workspace.data(), workspace.size()}); }).field(), "q.shape[1]");
}

TEST(BackwardLaunch, UncheckedGivesTheBitsOfChecked) {
  cases::Case c = cases::MakeCase(ParseProblem(kCases[2]));
  const Plan plan(c.problem());
  std::vector<std::byte> workspace(plan.workspace_bytes());
  LaunchBackward(plan, c.call(), {workspace.data(), workspace.size()});
  const std::uint64_t sum = cases::Checksum(c.call().dk);
  cases::PoisonOutputs(c.problem(), c.call());
  LaunchBackwardUnchecked(plan, c.call(), {workspace.data(), workspace.size()});
  EXPECT_EQ(cases::Checksum(c.call().dk), sum);
}

TEST(BackwardLaunch, PlansOfTheOtherDirectionAreRefused) {
  cases::Case c = cases::MakeCase(ParseProblem("backward sq=9 skv=12 hq=4 hkv=2 d=16 dtype=f32"));
  Problem forward = c.problem();
  forward.phase = Phase::kPrefill;
  forward.lse = true;
  const Plan back(c.problem()), front(forward);
  std::vector<std::byte> workspace(std::max(back.workspace_bytes(), front.workspace_bytes()));
  const Workspace w{workspace.data(), workspace.size()};
  const Error with_front = ErrorOf([&] { LaunchBackward(front, c.call(), w); });
  EXPECT_EQ(with_front.field(), "plan");
  EXPECT_NE(with_front.expected().find("phase backward"), std::string::npos);
  EXPECT_EQ(ErrorOf([&] { Launch(back, c.args(), w); }).field(), "plan");
  EXPECT_EQ(ErrorOf([&] { LaunchBackwardUnchecked(front, c.call(), w); }).field(), "plan");
}

TEST(BackwardLaunch, AWorkspaceInAGradientIsRefused) {
  cases::Case c = cases::MakeCase(ParseProblem("backward sq=90 skv=900 hq=4 hkv=2 d=160 dtype=f32"));
  const Plan plan(c.problem());
  const auto bytes = static_cast<std::size_t>(c.call().dk.Elements()) * sizeof(float);
  std::vector<std::byte> own(plan.workspace_bytes() + bytes);
  BackwardArgs args = c.call();
  args.dk.data = own.data() + plan.workspace_bytes() - 64;
  const Error e = ErrorOf([&] { LaunchBackward(plan, args, {own.data(), plan.workspace_bytes()}); });
  EXPECT_EQ(e.field(), "workspace");
  EXPECT_NE(e.value().find("dk"), std::string::npos);
}

TEST(BackwardExplain, SaysWhatIsDifferentiated) {
  const Problem p = ParseProblem("backward sq=64 skv=64 dtype=bf16 bias dbias dlse grad=f32");
  const Selection s = Select(p, DeviceCaps::Host());
  const Plan plan(p, s);
  const std::string text = ExplainText(p, DeviceCaps::Host(), &plan, s);
  for (const char* part : {"backward", "dlse", "dbias", "gradients f32"}) EXPECT_NE(text.find(part), std::string::npos) << part;
}

}  // namespace
}  // namespace regard
