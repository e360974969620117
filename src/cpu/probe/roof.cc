#include "src/cpu/probe/roof.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>

#include "src/core/cpu_detect.h"

namespace regard::probe {
namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Results that the compiler must believe somebody reads.
std::atomic<std::uint64_t> sink{0};

// 64 additions, each waiting for the one before. A register operand: some CPUs resolve additions of constants early.
std::uint64_t AddChain(std::int64_t rounds, std::uint64_t step) {
  std::uint64_t x = step;
  for (std::int64_t r = 0; r < rounds; ++r) {
#if defined(__x86_64__)
    asm volatile(".rept 64\n\tadd %1, %0\n\t.endr" : "+r"(x) : "r"(step));
#elif defined(__aarch64__)
    asm volatile(".rept 64\n\tadd %0, %0, %1\n\t.endr" : "+r"(x) : "r"(step));
#else
    for (int i = 0; i < 64; ++i) {
      x += step;
      asm volatile("" : "+r"(x));
    }
#endif
  }
  return x;
}

auto LoopOf(const ProbeTable& table, FlopsKind kind) {
  return kind == FlopsKind::kFmaF32 ? table.fma_f32 : table.dot_bf16;
}

// Steps of a flops loop that take about `seconds` on the calling thread.
std::int64_t StepsFor(double (*loop)(std::int64_t), double seconds) {
  std::int64_t steps = 256;
  for (;;) {
    const auto start = Clock::now();
    loop(steps);
    const double took = SecondsSince(start);
    if (took > 2e-4)
      return std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(steps) * seconds / took));
    steps *= 4;
  }
}

}  // namespace

const ProbeTable* ProbesFor(Isa isa) noexcept {
  switch (isa) {
    case Isa::kScalar:
      return &ScalarProbes();
#if defined(__x86_64__)
    case Isa::kAvx2:
      return &Avx2Probes();
    case Isa::kAvx512:
      return &Avx512Probes();
    case Isa::kAvx512Bf16:
      return &Avx512Bf16Probes();
#elif defined(__aarch64__)
    case Isa::kNeon:
      return &NeonProbes();
#endif
    default:
      return nullptr;
  }
}

Isa Runnable(Isa isa) {
  Isa best = Isa::kScalar;
  for (const Isa detected : DetectIsas()) {
    if (detected <= isa && detected > best && ProbesFor(detected)) best = detected;
  }
  return best;
}

double ClockHz(double seconds) {
  constexpr std::int64_t kRounds = 2000;
  std::int64_t rounds = 0;
  const auto start = Clock::now();
  double took = 0;
  do {
    sink.fetch_add(AddChain(kRounds, 3), std::memory_order_relaxed);
    rounds += kRounds;
    took = SecondsSince(start);
  } while (took < seconds);
  return static_cast<double>(rounds) * 64 / took;
}

double FlopsRoof(Executor& executor, Isa isa, FlopsKind kind, double seconds) {
  const ProbeTable* table = ProbesFor(Runnable(isa));
  auto* loop = LoopOf(*table, kind);
  if (!loop) return 0;
  // Small tasks, several a thread, so that a thread that lost its core for a moment leaves its share to others.
  constexpr int kTasksPerThread = 4;
  const std::int64_t tasks = static_cast<std::int64_t>(executor.threads()) * kTasksPerThread;
  const std::int64_t steps = StepsFor(loop, seconds / kTasksPerThread);
  double flops_of_task = 0;
  const auto start = Clock::now();
  executor.For(tasks, [&](std::int64_t task, int) {
    const double flops = loop(steps);
    if (task == 0) flops_of_task = flops;
  });
  return flops_of_task * static_cast<double>(tasks) / SecondsSince(start);
}

ReadRoof::ReadRoof(Executor& executor, Isa isa, std::vector<Chunk> chunks, ReadKind kind)
    : executor_(executor), table_(*ProbesFor(Runnable(isa))), kind_(kind) {
  constexpr std::size_t kSharesPerThread = 8, kLeastShareBytes = 64 << 10;
  for (const Chunk& chunk : chunks) bytes_ += chunk.bytes;
  // Equal shares, several a thread for balance, none so short that streams do not get going; streams are cut anywhere
  // (at cache lines), pages only between chunks.
  const std::size_t shares = static_cast<std::size_t>(executor.threads()) * kSharesPerThread;
  const std::size_t share_bytes = std::max<std::size_t>((bytes_ / shares + 63) / 64 * 64, kLeastShareBytes);
  std::size_t filled = 0;
  task_begin_.push_back(0);
  auto close_task = [&] {
    if (chunks_.size() > task_begin_.back()) task_begin_.push_back(chunks_.size());
    filled = 0;
  };
  for (Chunk chunk : chunks) {
    while (kind == ReadKind::kStreams && filled + chunk.bytes > share_bytes) {
      const std::size_t take = share_bytes - filled;
      chunks_.push_back({chunk.data, take});
      chunk.data += take;
      chunk.bytes -= take;
      close_task();
    }
    if (chunk.bytes == 0) continue;
    chunks_.push_back(chunk);
    filled += chunk.bytes;
    if (filled >= share_bytes) close_task();
  }
  close_task();

  constexpr Prefetch kStreamPrefetches[] = {{}, {512, false}, {2048, false}, {4096, true}};
  constexpr Prefetch kChunkPrefetches[] = {{},           {512, false}, {2048, false}, {8192, false},
                                           {4096, true}, {8192, true}, {16384, true}, {32768, true},
                                           {65536, true}, {131072, true}};
  std::vector<Variant> variants;
  if (kind == ReadKind::kStreams) {
    for (const int streams : {1, 2, 4, 8, 16}) {
      for (const Prefetch& prefetch : kStreamPrefetches) variants.push_back({streams, prefetch});
    }
  } else {
    for (const Prefetch& prefetch : kChunkPrefetches) variants.push_back({1, prefetch});
  }
  // Variants are told apart on the first tasks: enough to defeat the caches where the whole would.
  constexpr std::size_t kTrialBytes = std::size_t{256} << 20;
  const std::size_t tasks = task_begin_.size() - 1;
  const std::size_t trial = bytes_ <= kTrialBytes ? tasks : std::max<std::size_t>(1, tasks * kTrialBytes / bytes_);
  double best = 0;
  Pass(variants.front(), trial);  // warms the page tables and the executor
  for (const Variant& variant : variants) {
    const double rate = std::max(Pass(variant, trial), Pass(variant, trial));
    if (rate > best) {
      best = rate;
      best_ = variant;
    }
  }
}

double ReadRoof::Pass(const Variant& variant, std::size_t tasks) {
  if (tasks == 0) return 0;
  std::size_t bytes = 0;
  for (std::size_t c = 0; c < task_begin_[tasks]; ++c) bytes += chunks_[c].bytes;
  const auto start = Clock::now();
  executor_.For(static_cast<std::int64_t>(tasks), [&](std::int64_t task, int) {
    const std::size_t begin = task_begin_[static_cast<std::size_t>(task)];
    const std::size_t end = task_begin_[static_cast<std::size_t>(task) + 1];
    std::uint64_t sum = 0;
    if (kind_ == ReadKind::kChunks) {
      sum = table_.read_chunks(&chunks_[begin], end - begin, variant.prefetch);
    } else {
      for (std::size_t c = begin; c < end; ++c)
        sum ^= table_.read_streams(chunks_[c], variant.streams, variant.prefetch);
    }
    sink.fetch_xor(sum, std::memory_order_relaxed);
  });
  return static_cast<double>(bytes) / SecondsSince(start);
}

double ReadRoof::Run() {
  return Pass(best_, task_begin_.size() - 1);
}

std::string ReadRoof::variant() const {
  std::string text = kind_ == ReadKind::kChunks
                         ? "in the case's order"
                         : std::to_string(best_.streams) + (best_.streams == 1 ? " stream" : " streams");
  const Prefetch& prefetch = best_.prefetch;
  if (prefetch.lead_bytes > 0) {
    text += ", prefetch " + std::to_string(prefetch.lead_bytes) + " B ahead into " + (prefetch.into_l2 ? "L2" : "L1");
  }
  return text;
}

PipeCheck CheckPipes(Isa isa, FlopsKind kind) {
  constexpr int kRounds = 25;
  PipeCheck check;
  const ProbeTable* table = ProbesFor(Runnable(isa));
  auto* loop = LoopOf(*table, kind);
  if (!loop) return check;
  const std::unique_ptr<Executor> serial(MakeExecutor(ExecutorKind::kSerial, 1));
  for (int round = 0; round < kRounds; ++round) {
    check.clock_hz = std::max(check.clock_hz, ClockHz());
    check.flops = std::max(check.flops, FlopsRoof(*serial, isa, kind, 0.002));
  }
  const double flops_per_instruction = table->lanes * (kind == FlopsKind::kFmaF32 ? 2.0 : 4.0);
  check.per_cycle = check.flops / flops_per_instruction / check.clock_hz;
  check.pipes = std::max(1, static_cast<int>(std::ceil(check.per_cycle - 0.05)));
  check.fraction = check.per_cycle / check.pipes;
  return check;
}

}  // namespace regard::probe
