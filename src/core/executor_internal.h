// What the executors share: nesting, and life after fork.
//
// Nesting: a thread that runs a body is marked; a ParallelFor from inside a body runs serially on that thread. In the
// same executor it keeps the outer worker number, so that per-worker scratch stays apart.
// Fork: a child of a process whose pool had started has none of the pool's threads, and runs serially for good. Where
// regard had started none, some other library may have used the OpenMP runtime's pool, which a child must not touch: the
// child's OpenMP executors take threads of their own.
#pragma once

#include <cstdint>
#include <memory>

#include "regard/executor.h"

namespace regard::internal {

// Marks this thread as running bodies of `executor`, until destruction.
class BodyScope {
 public:
  BodyScope(const Executor* executor, int worker) noexcept;
  ~BodyScope();
  BodyScope(const BodyScope&) = delete;
  BodyScope& operator=(const BodyScope&) = delete;

 private:
  const Executor* outer_executor_;
  int outer_worker_;
};

// fn(ctx, i, worker) for i = 0, 1, ... n-1 on this thread.
void RunSerially(const Executor* executor, std::int64_t n, Executor::Fn fn, void* ctx) noexcept;

// True inside a body, and in a forked child as above (which the first call says on stderr).
bool MustRunSerially() noexcept;

// Forks from now on are noticed. To be called early: by whatever loads regard, and before an executor is made.
void WatchForks() noexcept;
// To be called before threads are started: forks from now on leave a child without them.
void NotePoolStarts() noexcept;
bool InForkedChild() noexcept;       // of a process whose pool had started
bool InAnyForkedChild() noexcept;    // of a process that watched for forks

std::unique_ptr<Executor> MakeOpenMpExecutor(int threads);     // executor_openmp.cc
std::unique_ptr<Executor> MakeStdThreadExecutor(int threads);  // executor_threads.cc

}  // namespace regard::internal
