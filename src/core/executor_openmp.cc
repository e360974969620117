// The default executor: OpenMP's own pool, which a host program (PyTorch, MKL) usually has running already.
//
// In a forked child the runtime's pool may be one that another library started before the fork, without its threads: a
// region would wait for them for ever. There a private pool of std::thread does the work.
//
// Every parallel run takes the whole team, however few tasks there are: asking for a smaller one makes libgomp end
// threads and start them again at the next full run.

#include <omp.h>

#include <mutex>

#include "src/core/executor_internal.h"

namespace regard::internal {
namespace {

class OpenMpExecutor final : public Executor {
 public:
  explicit OpenMpExecutor(int threads) noexcept : threads_(threads) {}
  int threads() const noexcept override { return threads_; }

  void ParallelFor(std::int64_t n, Fn fn, void* ctx) noexcept override {
    if (n <= 1 || threads_ == 1 || omp_in_parallel() != 0 || MustRunSerially()) return RunSerially(this, n, fn, ctx);
    if (InAnyForkedChild()) {
      if (Executor* own = OwnThreads()) return own->ParallelFor(n, fn, ctx);
      return RunSerially(this, n, fn, ctx);
    }
    NotePoolStarts();
#pragma omp parallel num_threads(threads_)
    {
      const int worker = omp_get_thread_num();
      const BodyScope scope(this, worker);
#pragma omp for schedule(dynamic, 1)
      for (std::int64_t i = 0; i < n; ++i) fn(ctx, i, worker);
    }
  }

 private:
  // The private pool of a forked child; null where the system gives no threads.
  Executor* OwnThreads() noexcept {
    std::call_once(own_once_, [this] {
      try {
        own_ = MakeStdThreadExecutor(threads_);
      } catch (...) {
        own_.reset();
      }
    });
    return own_.get();
  }

  const int threads_;
  std::once_flag own_once_;
  std::unique_ptr<Executor> own_;
};

}  // namespace

std::unique_ptr<Executor> MakeOpenMpExecutor(int threads) { return std::make_unique<OpenMpExecutor>(threads); }

}  // namespace regard::internal
