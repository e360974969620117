// All executors: every index once, distinct workers, nesting, fork, no allocation.

#include "regard/executor.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "regard/status.h"
#include "src/core/env.h"

namespace {
std::atomic<std::int64_t> g_allocations{0};
}  // namespace

// Counts this program's allocations through new. Kept out of line: inlined into gtest's code, g++ 12 takes malloc and
// delete (or new and free) for a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(bytes > 0 ? bytes : 1);
}
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (void* p = operator new(bytes, std::nothrow)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace regard {
namespace {

#if defined(__SANITIZE_THREAD__)
#define REGARD_UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define REGARD_UNDER_TSAN 1
#endif
#endif

// The kinds that this build can run: ThreadSanitizer does not understand OpenMP's barriers.
std::vector<ExecutorKind> Kinds() {
#if defined(REGARD_UNDER_TSAN)
  return {ExecutorKind::kSerial, ExecutorKind::kStdThread};
#else
  return {ExecutorKind::kSerial, ExecutorKind::kOpenMp, ExecutorKind::kStdThread};
#endif
}

constexpr int kThreads = 4;

std::unique_ptr<Executor> Make(ExecutorKind kind, int threads = kThreads) {
  return std::unique_ptr<Executor>(MakeExecutor(kind, threads));
}

TEST(Executor, CallsEveryIndexExactlyOnce) {
  for (const ExecutorKind kind : Kinds()) {
    const auto executor = Make(kind);
    for (const std::int64_t n : {0, 1, 2, 3, 17, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(n));
      executor->For(n, [&](std::int64_t i, int worker) {
        calls[static_cast<std::size_t>(i)].fetch_add(1);
        if (worker < 0 || worker >= executor->threads()) std::abort();
      });
      for (const auto& count : calls) ASSERT_EQ(count.load(), 1) << static_cast<int>(kind) << " n=" << n;
    }
  }
}

TEST(Executor, WritesOfOneRunAreSeenAfterItAndByTheNext) {
  for (const ExecutorKind kind : Kinds()) {
    const auto executor = Make(kind);
    std::vector<std::int64_t> values(257, 0);  // plain memory: ThreadSanitizer judges the ordering
    for (int round = 0; round < 50; ++round) {
      executor->For(257, [&](std::int64_t i, int) { values[static_cast<std::size_t>(256 - i)] += i; });
    }
    for (std::int64_t i = 0; i < 257; ++i) ASSERT_EQ(values[static_cast<std::size_t>(i)], 50 * (256 - i));
  }
}

TEST(Executor, CallsThatRunTogetherHaveDifferentWorkers) {
  for (const ExecutorKind kind : Kinds()) {
    const auto executor = Make(kind);
    std::vector<std::atomic<int>> inside(static_cast<std::size_t>(executor->threads()));
    std::atomic<bool> shared{false};
    executor->For(500, [&](std::int64_t, int worker) {
      auto& here = inside[static_cast<std::size_t>(worker)];
      if (here.fetch_add(1) != 0) shared = true;
      std::this_thread::yield();
      here.fetch_sub(1);
    });
    EXPECT_FALSE(shared.load()) << static_cast<int>(kind);
  }
}

TEST(Executor, UsesAllItsThreads) {
  for (const ExecutorKind kind : Kinds()) {
    if (kind == ExecutorKind::kSerial) continue;
    const auto executor = Make(kind);
    EXPECT_EQ(executor->threads(), kThreads);
    // Every call waits until all have begun: one thread alone would never finish.
    std::atomic<int> begun{0};
    executor->For(kThreads, [&](std::int64_t, int) {
      begun.fetch_add(1);
      while (begun.load() < kThreads) std::this_thread::yield();
    });
    EXPECT_EQ(begun.load(), kThreads);
  }
  EXPECT_EQ(Make(ExecutorKind::kSerial, 8)->threads(), 1);
}

TEST(Executor, NestedCallRunsSeriallyAndKeepsTheOuterWorker) {
  for (const ExecutorKind kind : Kinds()) {
    const auto outer = Make(kind);
    const auto other = Make(ExecutorKind::kStdThread);
    std::atomic<int> wrong{0}, inner_calls{0};
    outer->For(16, [&](std::int64_t, int worker) {
      const std::thread::id self = std::this_thread::get_id();
      outer->For(8, [&](std::int64_t, int inner_worker) {
        inner_calls.fetch_add(1);
        if (std::this_thread::get_id() != self || inner_worker != worker) wrong.fetch_add(1);
      });
      other->For(8, [&](std::int64_t, int) {
        inner_calls.fetch_add(1);
        if (std::this_thread::get_id() != self) wrong.fetch_add(1);
      });
    });
    EXPECT_EQ(wrong.load(), 0) << static_cast<int>(kind);
    EXPECT_EQ(inner_calls.load(), 16 * 16);
  }
}

TEST(Executor, TwoHostThreadsMayShareOne) {
  for (const ExecutorKind kind : Kinds()) {
    const auto executor = Make(kind);
    std::atomic<std::int64_t> sum{0};
    const auto run = [&] {
      for (int round = 0; round < 50; ++round) executor->For(100, [&](std::int64_t i, int) { sum.fetch_add(i); });
    };
    std::thread a(run), b(run);
    a.join();
    b.join();
    EXPECT_EQ(sum.load(), 2 * 50 * 4950) << static_cast<int>(kind);
  }
}

TEST(Executor, RunsAllocateNothing) {
  for (const ExecutorKind kind : Kinds()) {
    const auto executor = Make(kind);
    std::atomic<std::int64_t> sum{0};
    executor->For(64, [&](std::int64_t i, int) { sum.fetch_add(i); });
    const std::int64_t before = g_allocations.load();
    for (int round = 0; round < 20; ++round) executor->For(64, [&](std::int64_t i, int) { sum.fetch_add(i); });
    EXPECT_EQ(g_allocations.load(), before) << static_cast<int>(kind);
  }
}

TEST(Executor, ThreadCountOutOfRangeIsAnErrorAndZeroMeansTheDefault) {
  for (const int threads : {-1, kMaxThreads + 1}) {
    try {
      Make(ExecutorKind::kOpenMp, threads);
      FAIL() << threads;
    } catch (const Error& e) {
      EXPECT_EQ(e.field(), "threads");
      EXPECT_EQ(e.value(), std::to_string(threads));
    }
  }
  EXPECT_EQ(Make(ExecutorKind::kOpenMp, 0)->threads(), DefaultThreads(Env()));
  EXPECT_EQ(DefaultExecutor().threads(), DefaultThreads(Env()));
  EXPECT_EQ(&DefaultExecutor(), &DefaultExecutor());
}

// What a child process wrote to stderr, and its exit code.
struct ChildResult {
  int exit_code = -1;
  std::string errors;
};

// Runs body() in a forked child.
template <class Body>
ChildResult InChild(Body&& body) {
  int ends[2];
  if (pipe(ends) != 0) return {};
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    dup2(ends[1], STDERR_FILENO);
    _exit(body());
  }
  close(ends[1]);
  ChildResult result;
  char buffer[512];
  for (ssize_t got; (got = read(ends[0], buffer, sizeof(buffer))) > 0;) {
    result.errors.append(buffer, static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  if (waitpid(child, &status, 0) == child && WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  return result;
}

TEST(Executor, ForkedChildOfAStartedPoolRunsSeriallyAndSaysSoOnce) {
  for (const ExecutorKind kind : Kinds()) {
    if (kind == ExecutorKind::kSerial) continue;
    auto executor = Make(kind);
    std::atomic<int> warm{0};
    executor->For(64, [&](std::int64_t, int) { warm.fetch_add(1); });
    const ChildResult child = InChild([&] {
      alarm(20);  // a hang ends the child by a signal
      const std::thread::id self = std::this_thread::get_id();
      int calls = 0, elsewhere = 0;
      for (int round = 0; round < 3; ++round) {
        executor->For(10, [&](std::int64_t, int) {
          ++calls;
          elsewhere += std::this_thread::get_id() != self;
        });
      }
      executor.reset();  // must not wait for threads that are not there
      return calls == 30 && elsewhere == 0 ? 0 : 1;
    });
    EXPECT_EQ(child.exit_code, 0) << static_cast<int>(kind);
    const std::string line = "regard: this process was forked";
    const std::size_t first = child.errors.find(line);
    EXPECT_NE(first, std::string::npos) << child.errors;
    EXPECT_EQ(child.errors.find(line, first + 1), std::string::npos) << child.errors;
    // The parent goes on in parallel.
    std::atomic<int> begun{0};
    executor->For(kThreads, [&](std::int64_t, int) {
      begun.fetch_add(1);
      while (begun.load() < kThreads) std::this_thread::yield();
    });
    EXPECT_EQ(begun.load(), kThreads);
  }
}

// Under OpenMP's own pool, which a child inherits without its threads, a region of the child would wait for ever.
TEST(Executor, ChildForkedAfterAnotherLibraryUsedOpenMpFinishes) {
  const std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kOpenMp, kThreads));
  std::atomic<int> others{0};
#pragma omp parallel num_threads(kThreads)
  others.fetch_add(1);
  const ChildResult child = InChild([&] {
    alarm(20);
    std::atomic<int> calls{0};
    for (int round = 0; round < 3; ++round) executor->For(10, [&](std::int64_t, int) { calls.fetch_add(1); });
    return calls.load() == 30 ? 0 : 1;
  });
  EXPECT_EQ(child.exit_code, 0);
}

}  // namespace
}  // namespace regard
