// Executor: choice of the kind, the serial one, nesting and fork.

#include "regard/executor.h"

#include <pthread.h>

#include <atomic>
#include <cstdio>
#include <mutex>
#include <string>

#include "regard/status.h"
#include "src/core/env.h"
#include "src/core/executor_internal.h"

// ThreadSanitizer cannot see OpenMP's own synchronisation; under it the default executor is the std::thread one.
#if defined(__SANITIZE_THREAD__)
#define REGARD_UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define REGARD_UNDER_TSAN 1
#endif
#endif

namespace regard {
namespace internal {
namespace {

thread_local const Executor* t_executor = nullptr;  // whose body this thread runs
thread_local int t_worker = 0;

std::atomic<bool> g_pool_started{false};
std::atomic<bool> g_any_forked_child{false};
std::atomic<bool> g_forked_child{false};
std::atomic<bool> g_fork_told{false};

}  // namespace

BodyScope::BodyScope(const Executor* executor, int worker) noexcept
    : outer_executor_(t_executor), outer_worker_(t_worker) {
  t_executor = executor;
  t_worker = worker;
}

BodyScope::~BodyScope() {
  t_executor = outer_executor_;
  t_worker = outer_worker_;
}

void RunSerially(const Executor* executor, std::int64_t n, Executor::Fn fn, void* ctx) noexcept {
  const int worker = t_executor == executor ? t_worker : 0;
  const BodyScope scope(executor, worker);
  for (std::int64_t i = 0; i < n; ++i) fn(ctx, i, worker);
}

bool InForkedChild() noexcept { return g_forked_child.load(std::memory_order_relaxed); }

bool MustRunSerially() noexcept {
  if (t_executor != nullptr) return true;
  if (!InForkedChild()) return false;
  if (!g_fork_told.exchange(true)) {
    std::fputs(
        "regard: this process was forked after regard had started its threads; it runs on one thread "
        "(fork before the first call, or spawn the process, to use more)\n",
        stderr);
  }
  return true;
}

bool InAnyForkedChild() noexcept { return g_any_forked_child.load(std::memory_order_relaxed); }

void WatchForks() noexcept {
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_atfork(nullptr, nullptr, [] {
      g_any_forked_child.store(true, std::memory_order_relaxed);
      if (g_pool_started.load(std::memory_order_relaxed)) g_forked_child.store(true, std::memory_order_relaxed);
    });
  });
}

void NotePoolStarts() noexcept {
  WatchForks();
  g_pool_started.store(true, std::memory_order_relaxed);
}

}  // namespace internal

namespace {

class SerialExecutor final : public Executor {
 public:
  int threads() const noexcept override { return 1; }
  void ParallelFor(std::int64_t n, Fn fn, void* ctx) noexcept override { internal::RunSerially(this, n, fn, ctx); }
};

}  // namespace

Executor::~Executor() = default;

Executor* MakeExecutor(ExecutorKind kind, int threads) {
  if (threads < 0 || threads > kMaxThreads) {
    throw Error("threads", std::to_string(threads),
                "0 (REGARD_THREADS or all cores) to " + std::to_string(kMaxThreads));
  }
  if (threads == 0) threads = DefaultThreads(Env());
  internal::WatchForks();
  switch (kind) {
    case ExecutorKind::kSerial:
      break;
    case ExecutorKind::kOpenMp:
      return internal::MakeOpenMpExecutor(threads).release();
    case ExecutorKind::kStdThread:
      return internal::MakeStdThreadExecutor(threads).release();
  }
  return new SerialExecutor;
}

Executor& DefaultExecutor() {
#if defined(REGARD_UNDER_TSAN)
  constexpr ExecutorKind kKind = ExecutorKind::kStdThread;
#else
  constexpr ExecutorKind kKind = ExecutorKind::kOpenMp;
#endif
  // Never destroyed: other static objects may still launch work while the process ends.
  static Executor* const executor = MakeExecutor(kKind, 0);
  return *executor;
}

}  // namespace regard
