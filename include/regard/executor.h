// Executor: the one way regard runs work on several threads. A host engine may hand in its own.
#pragma once

#include <cstdint>
#include <type_traits>

#include "regard/export.h"

namespace regard {

// parallel_for(n, fn, ctx) calls fn(ctx, i, worker) once for every i in [0, n), worker in [0, threads()), and returns
// when all calls have returned; two calls that run at the same time have different worker numbers. fn never throws.
// A nested call, and a call in a forked child of a process whose pool has started, runs serially on the calling thread.
class REGARD_API Executor {
 public:
  using Fn = void (*)(void* ctx, std::int64_t index, int worker) noexcept;
  virtual ~Executor();
  virtual int threads() const noexcept = 0;
  virtual void ParallelFor(std::int64_t n, Fn fn, void* ctx) noexcept = 0;

  // Typed convenience over a callable body(i, worker).
  template <class Body>
  void For(std::int64_t n, Body&& body) noexcept {
    using B = std::remove_reference_t<Body>;
    ParallelFor(n, [](void* ctx, std::int64_t i, int worker) noexcept { (*static_cast<B*>(ctx))(i, worker); },
                const_cast<void*>(static_cast<const void*>(&body)));
  }
};

// The default: OpenMP (shares the host's pool as PyTorch does), `threads` 0 = REGARD_THREADS or all cores.
REGARD_API Executor& DefaultExecutor();
// Makes a private executor; the caller owns it (delete through the base class).
enum class ExecutorKind { kSerial, kOpenMp, kStdThread };
REGARD_API Executor* MakeExecutor(ExecutorKind kind, int threads);

}  // namespace regard
