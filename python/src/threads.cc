// One executor for each number of threads, made at its first use and never destroyed.
#include "python/src/threads.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "src/core/env.h"

namespace regard::python {

Executor& CallerExecutor() {
  if (Env().threads) return DefaultExecutor();
  static std::array<std::atomic<Executor*>, kMaxThreads + 1> executors{};
  const int threads = std::clamp(omp_get_max_threads(), 1, kMaxThreads);
  std::atomic<Executor*>& place = executors[static_cast<std::size_t>(threads)];
  Executor* executor = place.load(std::memory_order_acquire);
  if (executor == nullptr) {
    Executor* made = MakeExecutor(ExecutorKind::kOpenMp, threads);
    if (place.compare_exchange_strong(executor, made)) {
      executor = made;
    } else {
      delete made;
    }
  }
  return *executor;
}

}  // namespace regard::python
