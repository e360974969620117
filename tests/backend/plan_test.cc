// What a plan refuses, and what it keeps.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/backend/kernel_info.h"
#include "src/cases/cases.h"

namespace regard {
namespace {

std::string FieldOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.field();
  }
  return "none";
}

TEST(Plan, KeepsProblemSelectionShapeAndExecutor) {
  const Problem p = ParseProblem("decode b=4 sq=1 skv=5000 hq=8 hkv=2 d=64 dtype=f16");
  std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kSerial, 1));
  const Selection s = Select(p, DeviceCaps::Host());
  Plan plan(p, s, executor.get());
  EXPECT_EQ(plan.problem(), p);
  EXPECT_EQ(plan.selection().kernel, s.kernel);
  EXPECT_EQ(plan.shape().threads, 1);
  EXPECT_EQ(&plan.executor(), executor.get());
  EXPECT_GT(plan.workspace_bytes(), 0u);
  EXPECT_EQ(plan.workspace_bytes() % 64, 0u);
  const Plan moved = std::move(plan);
  EXPECT_EQ(moved.problem(), p);
  EXPECT_EQ(&Plan(p).executor(), &DefaultExecutor());
}

TEST(Plan, RefusesIllegalBoundsAndEmptySelections) {
  Problem p = ParseProblem("decode sq=1 skv=64");
  EXPECT_EQ(FieldOf([&] { Plan(p, Selection{}); }), "selection");
  const Selection s = Select(p, DeviceCaps::Host());
  p.heads_q = 0;
  EXPECT_EQ(FieldOf([&] { Plan(p, s); }), "hq");
  p = ParseProblem("decode b=1099511627776 sq=1 skv=1048576 hq=1 hkv=1 d=1 dv=1");
  EXPECT_EQ(FieldOf([&] { Plan{p}; }), "bounds");
}

TEST(Plan, OfAKernelThatThisMachineCannotRunExplainsButDoesNotLaunch) {
  const Problem decode = ParseProblem("decode sq=1 skv=64 hq=2 hkv=2 d=16 dtype=f32");
  cases::Case c = cases::MakeCase(decode);
  const Selection other = Select(ParseProblem("prefill sq=64 skv=64 hq=2 hkv=2 d=16 dtype=f32"), DeviceCaps::Host());
  const Plan plan(c.problem(), other);  // a prefill kernel for a decode problem
  std::vector<std::byte> workspace(plan.workspace_bytes());
  EXPECT_EQ(FieldOf([&] { Launch(plan, c.args(), {workspace.data(), workspace.size()}); }), "plan");
  EXPECT_NE(ExplainText(decode, DeviceCaps::Host(), &plan, other).find(other.kernel), std::string::npos);
}

TEST(Launch, AWorkspaceInsideATensorIsRefused) {
  cases::Case c = cases::MakeCase(ParseProblem("prefill sq=2000 skv=2000 hq=8 hkv=8 d=64 dtype=f32"));
  std::unique_ptr<Executor> serial(MakeExecutor(ExecutorKind::kSerial, 1));
  const Plan plan(c.problem(), DeviceCaps::Host(), serial.get());
  const std::size_t bytes = plan.workspace_bytes();
  const AttentionArgs& a = c.args();
  const std::uint64_t q = cases::Checksum(a.q), k = cases::Checksum(a.k), out = cases::Checksum(a.out);
  for (const TensorView* t : {&a.q, &a.k, &a.v, &a.out}) {
    ASSERT_GE(static_cast<std::size_t>(t->Elements()) * 4, bytes);
    EXPECT_EQ(FieldOf([&] { Launch(plan, a, {t->data, bytes}); }), "workspace");
  }
  EXPECT_EQ(cases::Checksum(a.q), q);
  EXPECT_EQ(cases::Checksum(a.k), k);
  EXPECT_EQ(cases::Checksum(a.out), out);
}

TEST(Launch, EveryAbleKernelGivesAnAnswerWithinTheRule) {
  for (const char* text : {"decode b=2 sq=3 skv=1100 hq=4 hkv=2 d=40 dtype=bf16 causal lse page=8",
                           "prefill b=2 sq=33 skv=70 hq=4 hkv=2 d=40 dtype=f32 window=9, softcap=4 lse"}) {
    for (const KernelInfo* kernel : AllKernels()) {
      cases::Case c = cases::MakeCase(ParseProblem(text));
      if (!kernel->supports(*kernel, c.problem(), DeviceCaps::Host()).accepted) continue;
      const ScopedKernelChoice scope({{kernel->name}, {}});
      const AttentionResult r = Attention(c.args(), c.problem().options);
      EXPECT_EQ(r.selection.kernel, kernel->name);
      const cases::Accuracy accuracy = cases::CheckAccuracy(c.problem(), c.args());
      EXPECT_TRUE(accuracy.ok()) << kernel->name << " " << text << " " << accuracy.where;
    }
  }
}

TEST(Api, ACallTakesItsChoiceExecutorAndWorkspace) {
  cases::Case c = cases::MakeCase(ParseProblem("decode b=2 sq=1 skv=300 hq=4 hkv=2 d=64 dtype=f32"));
  std::unique_ptr<Executor> serial(MakeExecutor(ExecutorKind::kSerial, 1));
  CallControl control;
  control.choice = KernelChoice{{"cpu.scalar"}, {}};
  control.executor = serial.get();
  EXPECT_EQ(Attention(c.args(), {}, false, control).selection.kernel, "cpu.scalar.decode.f32");
  std::vector<std::byte> small(16);
  control.workspace = {small.data(), small.size()};
  EXPECT_EQ(FieldOf([&] { Attention(c.args(), {}, false, control); }), "workspace");
  const Plan plan(c.problem(), Select(c.problem(), DeviceCaps::Host(), *control.choice), serial.get());
  std::vector<std::byte> enough(plan.workspace_bytes());
  control.workspace = {enough.data(), enough.size()};
  Attention(c.args(), {}, false, control);
  EXPECT_TRUE(cases::CheckAccuracy(c.problem(), c.args()).ok());
}

}  // namespace
}  // namespace regard
