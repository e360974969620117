// Plans: made once, launched many times with other lengths and tables, without allocating; shared by threads.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <vector>

#include "regard/regard.h"
#include "src/cases/cases.h"

namespace {
std::atomic<long> allocations{0};
void* Counted(std::size_t n) {
  ++allocations;
  if (void* p = std::malloc(n > 0 ? n : 1)) return p;
  throw std::bad_alloc();
}
}  // namespace

// Every allocation of this program is counted.
void* operator new(std::size_t n) { return Counted(n); }
void* operator new[](std::size_t n) { return Counted(n); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

namespace regard {
namespace {

std::vector<std::byte> OutBytes(const AttentionArgs& a) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(a.out.Elements()) * SizeOf(a.out.dtype));
  std::memcpy(bytes.data(), a.out.data, bytes.size());
  return bytes;
}

Workspace Of(std::vector<std::byte>& memory) { return {memory.data(), memory.size()}; }

TEST(Launch, OnePlanServesManyLengthsWithoutAllocating) {
  const Problem bounds = ParseProblem("mixed b=4 sq=70 skv=1500 hq=4 hkv=2 d=64 dtype=bf16 page=16 causal lse varlen");
  std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kStdThread, 2));
  const Plan plan(bounds, DeviceCaps::Host(), executor.get());
  std::vector<std::byte> workspace(plan.workspace_bytes());
  for (const char* text : {"mixed b=4 qlens=1,70,15,3 lens=1500,70,15,1030 varlen hq=4 hkv=2 d=64 dtype=bf16 page=16 causal lse",
                           "decode b=3 sq=1 lens=1,1025,3 hq=4 hkv=2 d=64 dtype=bf16 page=16 causal lse varlen",
                           "prefill b=1 sq=64 skv=64 hq=4 hkv=2 d=64 dtype=bf16 page=16 causal lse varlen"}) {
    cases::Case c = cases::MakeCase(ParseProblem(text));
    const long before = allocations;
    Launch(plan, c.args(), Of(workspace));
    EXPECT_EQ(allocations, before) << text;
    const cases::Accuracy accuracy = cases::CheckAccuracy(c.problem(), c.args());
    EXPECT_TRUE(accuracy.ok()) << text << " " << accuracy.where;
    const std::vector<std::byte> out = OutBytes(c.args());
    LaunchUnchecked(plan, c.args(), Of(workspace));
    EXPECT_EQ(out, OutBytes(c.args()));
  }
}

TEST(Launch, AppendsDoNotAllocateEither) {
  const Problem p = ParseProblem("decode b=3 sq=2 skv=300 append=2 rotary=half hq=4 hkv=2 d=64 dtype=f16 page=7 causal");
  cases::Case c = cases::MakeCase(p);
  const Plan plan(c.problem());
  std::vector<std::byte> workspace(plan.workspace_bytes());
  const long before = allocations;
  Launch(plan, c.args(), Of(workspace));
  EXPECT_EQ(allocations, before);
  EXPECT_TRUE(cases::CheckAccuracy(c.problem(), c.args()).ok());
}

TEST(Launch, RefusesWhatThePlanDoesNotCoverBeforeWriting) {
  const Problem bounds = ParseProblem("prefill b=1 sq=32 skv=64 hq=4 hkv=2 d=64 dtype=f32 causal");
  const Plan plan(bounds);
  std::vector<std::byte> workspace(plan.workspace_bytes());
  for (const char* text : {"prefill b=2 sq=32 skv=64 hq=4 hkv=2 d=64 dtype=f32 causal",
                           "prefill b=1 sq=33 skv=64 hq=4 hkv=2 d=64 dtype=f32 causal",
                           "prefill b=1 sq=32 skv=65 hq=4 hkv=2 d=64 dtype=f32 causal",
                           "prefill b=1 sq=32 skv=64 hq=4 hkv=4 d=64 dtype=f32 causal",
                           "prefill b=1 sq=32 skv=64 hq=4 hkv=2 d=32 dtype=f32 causal",
                           "prefill b=1 sq=32 skv=64 hq=4 hkv=2 d=64 dtype=f16 causal",
                           "prefill b=1 sq=32 skv=64 hq=4 hkv=2 d=64 dtype=f32 causal sink"}) {
    cases::Case c = cases::MakeCase(ParseProblem(text));
    const std::vector<std::byte> poisoned = OutBytes(c.args());
    EXPECT_THROW(Launch(plan, c.args(), Of(workspace)), Error) << text;
    EXPECT_EQ(poisoned, OutBytes(c.args())) << text;
  }
}

TEST(Launch, AWorkspaceTooSmallIsRefused) {
  cases::Case c = cases::MakeCase(ParseProblem("prefill sq=32 skv=64 hq=4 hkv=2 d=64"));
  const Plan plan(c.problem());
  std::vector<std::byte> workspace(plan.workspace_bytes() - 1);
  try {
    Launch(plan, c.args(), Of(workspace));
    FAIL() << "launched";
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), "workspace");
  }
  EXPECT_THROW(Launch(plan, c.args(), {}), Error);
}

TEST(Launch, AnyAlignmentOfTheWorkspaceServes) {
  cases::Case c = cases::MakeCase(ParseProblem("decode b=2 sq=1 skv=2100 hq=4 hkv=2 d=64 dtype=bf16"));
  const Plan plan(c.problem());
  std::vector<std::byte> memory(plan.workspace_bytes() + 64);
  Launch(plan, c.args(), {memory.data(), plan.workspace_bytes()});
  const std::vector<std::byte> out = OutBytes(c.args());
  for (std::size_t shift : {1, 7, 32, 63}) {
    Launch(plan, c.args(), {memory.data() + shift, plan.workspace_bytes()});
    EXPECT_EQ(out, OutBytes(c.args())) << shift;
  }
}

TEST(Launch, ThreadsShareAPlan) {
  const Problem p = ParseProblem("prefill sq=64 skv=300 hq=4 hkv=2 d=64 dtype=f32 causal");
  const Plan plan(p, DeviceCaps::Host());
  cases::Case expected = cases::MakeCase(p);
  std::vector<std::byte> workspace(plan.workspace_bytes());
  Launch(plan, expected.args(), Of(workspace));
  std::vector<cases::Case> cases;
  for (int n = 0; n < 3; ++n) cases.push_back(expected.Clone());
  std::vector<std::thread> threads;
  for (cases::Case& c : cases) {
    threads.emplace_back([&plan, &c] {
      std::vector<std::byte> own(plan.workspace_bytes());
      for (int n = 0; n < 5; ++n) Launch(plan, c.args(), {own.data(), own.size()});
    });
  }
  for (std::thread& t : threads) t.join();
  for (cases::Case& c : cases) EXPECT_EQ(OutBytes(expected.args()), OutBytes(c.args()));
}

}  // namespace
}  // namespace regard
