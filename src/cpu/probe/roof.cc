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
  CutIntoTasks(chunks);
  // Variants are told apart on the first tasks: enough to defeat the caches where the whole would. They take turns, so
  // that a neighbour's burst falls on all of them.
  constexpr std::size_t kTrialBytes = std::size_t{256} << 20;
  constexpr int kTrials = 3;
  const std::size_t tasks = task_begin_.size() - 1;
  const std::size_t trial = bytes_ <= kTrialBytes ? tasks : std::max<std::size_t>(1, tasks * kTrialBytes / bytes_);
  const std::vector<Variant> variants = Variants();
  double best = 0;
  Pass(variants.front(), trial);  // warms the page tables and the executor
  for (int n = 0; n < kTrials; ++n) {
    for (const Variant& variant : variants) {
      const double rate = Pass(variant, trial);
      if (rate > best) {
        best = rate;
        best_ = variant;
      }
    }
  }
}

// Equal shares, several a thread for balance, none so short that streams do not get going; streams are cut anywhere (at
// cache lines), pages only between chunks. Chunks of pages are cut into pieces of 4 KiB at most, so that groups of them
// stay small beside L2.
void ReadRoof::CutIntoTasks(const std::vector<Chunk>& chunks) {
  constexpr std::size_t kSharesPerThread = 8, kLeastShareBytes = 64 << 10, kMostPieceBytes = 4 << 10;
  for (const Chunk& chunk : chunks) bytes_ += chunk.bytes;
  const std::size_t shares = static_cast<std::size_t>(executor_.threads()) * kSharesPerThread;
  const std::size_t share_bytes = std::max<std::size_t>((bytes_ / shares + 63) / 64 * 64, kLeastShareBytes);
  std::size_t filled = 0;
  task_begin_.push_back(0);
  auto close_task = [&] {
    if (chunks_.size() > task_begin_.back()) task_begin_.push_back(chunks_.size());
    filled = 0;
  };
  for (Chunk chunk : chunks) {
    while (chunk.bytes > 0) {
      const bool streams = kind_ == ReadKind::kStreams;
      const std::size_t take = std::min(chunk.bytes, streams ? share_bytes - filled : kMostPieceBytes);
      chunks_.push_back({chunk.data, take});
      chunk.data += take;
      chunk.bytes -= take;
      filled += take;
      if ((streams || chunk.bytes == 0) && filled >= share_bytes) close_task();
    }
  }
  close_task();
}

std::vector<ReadRoof::Variant> ReadRoof::Variants() const {
  std::vector<Variant> variants;
  if (kind_ == ReadKind::kStreams) {
    for (const int streams : {1, 2, 4, 8, 16}) {
      for (const Prefetch& prefetch : {Prefetch{}, {512, false}, {2048, false}, {4096, true}}) {
        variants.push_back({streams, prefetch, {}});
      }
    }
    return variants;
  }
  // Pages in random order: 2 KiB each (one bf16 token of 8 heads of 128), 32 KiB, and 512 KiB, the larger ones cut into
  // pieces of 4 KiB. Zen 4, one thread, GB/s, medians of 21 rounds in turns:
  //   pages of                                2 KiB   32 KiB   512 KiB
  //   one after another, 128 KiB ahead         16.5     21.8      21.5
  //   8 side by side, 2 groups ahead           24.1     29.5      31.3
  //   12 side by side, 1 group ahead           24.5     30.6      30.0
  //   64 side by side, 1 ahead piece by piece  30.2     21.6      25.6
  // Lines of different pages in turn keep more of memory's banks busy than one page after another does.
  for (const Prefetch& prefetch : {Prefetch{}, {2048, false}, {8192, true}, {131072, true}}) {
    variants.push_back({1, {}, {1, prefetch}});
  }
  for (const int group : {8, 10, 12, 16}) {
    for (const int ahead : {1, 2}) variants.push_back({1, {}, {group, {}, ahead, false}});
  }
  for (const int group : {32, 48, 64, 96}) variants.push_back({1, {}, {group, {}, 1, true}});
  return variants;
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
      sum = table_.read_chunks(&chunks_[begin], end - begin, variant.walk);
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
  const ChunkWalk& walk = best_.walk;
  if (kind_ == ReadKind::kChunks && walk.group > 1) {
    return std::to_string(walk.group) + " pieces side by side, prefetch " + std::to_string(walk.groups_ahead) +
           " such ahead into L2, " + (walk.by_rows ? "piece by piece" : "line by line");
  }
  std::string text = kind_ == ReadKind::kChunks
                         ? "in the case's order"
                         : std::to_string(best_.streams) + (best_.streams == 1 ? " stream" : " streams");
  const Prefetch& prefetch = kind_ == ReadKind::kChunks ? walk.prefetch : best_.prefetch;
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
