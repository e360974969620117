// The twin of the OpenMP executor on std::thread: a pool of threads() - 1 threads beside the caller.
//
// One run: the caller publishes the job under the mutex and raises `generation`; every pool thread wakes, takes indices
// from `next` until none is left, and counts itself out of `running`; the caller, who works too, waits for running = 0.
// So a job's fields are only changed while no pool thread reads them. A second caller that comes while a run is under
// way does its work serially on its own thread.

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "regard/status.h"
#include "src/core/executor_internal.h"

namespace regard::internal {
namespace {

struct Job {
  Executor::Fn fn = nullptr;
  void* ctx = nullptr;
  std::int64_t n = 0;
};

class StdThreadExecutor final : public Executor {
 public:
  explicit StdThreadExecutor(int threads) : threads_(threads), pool_(std::make_unique<Pool>()) {
    if (InForkedChild() || threads_ == 1) return;
    NotePoolStarts();
    pool_->threads.reserve(static_cast<std::size_t>(threads_ - 1));
    try {
      for (int worker = 1; worker < threads_; ++worker) {
        pool_->threads.emplace_back([this, worker] { Serve(worker); });
      }
    } catch (const std::system_error&) {
      const std::size_t started = pool_->threads.size();
      Stop();
      throw Error("threads", std::to_string(threads),
                  "no more threads than the system starts for this process (" + std::to_string(started + 1) + ")");
    }
  }

  ~StdThreadExecutor() override {
    if (InForkedChild()) {
      // The threads are not in this process, and what they held at the fork stays held: neither join nor destroy.
      static_cast<void>(pool_.release());
    } else {
      Stop();
    }
  }

  int threads() const noexcept override { return threads_; }

  void ParallelFor(std::int64_t n, Fn fn, void* ctx) noexcept override {
    if (n <= 1 || threads_ == 1 || MustRunSerially() || pool_->busy.exchange(true, std::memory_order_acquire)) {
      return RunSerially(this, n, fn, ctx);
    }
    {
      const std::lock_guard lock(pool_->mutex);
      pool_->job = {fn, ctx, n};
      pool_->next.store(0, std::memory_order_relaxed);
      pool_->running = threads_ - 1;
      ++pool_->generation;
    }
    pool_->wake.notify_all();
    Work(pool_->job, 0);
    {
      std::unique_lock lock(pool_->mutex);
      pool_->done.wait(lock, [this] { return pool_->running == 0; });
    }
    pool_->busy.store(false, std::memory_order_release);
  }

 private:
  struct Pool {
    std::mutex mutex;
    std::condition_variable wake;  // pool threads wait for a new generation, or for stop
    std::condition_variable done;  // the caller waits for running == 0
    std::uint64_t generation = 0;
    int running = 0;  // pool threads that have not finished this generation
    bool stop = false;
    Job job;
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> busy{false};  // a caller owns the pool
    std::vector<std::thread> threads;
  };

  void Work(const Job& job, int worker) noexcept {
    const BodyScope scope(this, worker);
    for (;;) {
      const std::int64_t i = pool_->next.fetch_add(1, std::memory_order_relaxed);
      if (i >= job.n) return;
      job.fn(job.ctx, i, worker);
    }
  }

  void Serve(int worker) noexcept {
    std::uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock lock(pool_->mutex);
        pool_->wake.wait(lock, [&] { return pool_->stop || pool_->generation != seen; });
        if (pool_->stop) return;
        seen = pool_->generation;
      }
      Work(pool_->job, worker);
      const std::lock_guard lock(pool_->mutex);
      if (--pool_->running == 0) pool_->done.notify_one();
    }
  }

  void Stop() noexcept {
    {
      const std::lock_guard lock(pool_->mutex);
      pool_->stop = true;
    }
    pool_->wake.notify_all();
    for (std::thread& thread : pool_->threads) thread.join();
  }

  const int threads_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace

std::unique_ptr<Executor> MakeStdThreadExecutor(int threads) { return std::make_unique<StdThreadExecutor>(threads); }

}  // namespace regard::internal
