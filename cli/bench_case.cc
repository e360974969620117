#include "cli/bench_case.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/device_options.h"
#include "cli/kv_chunks.h"
#include "cli/page_kind.h"
#include "src/cases/buffer.h"
#include "src/cpu/probe/roof.h"
#include "src/problem/extent.h"

namespace regard::cli {
namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What one launch does.
struct Work {
  double flops = 0;
  double query_rows = 0, keys_per_row = 0;  // (i, h) pairs, and the longest row of keys
  std::vector<probe::Chunk> chunks;         // K and V in the order of the case
  double bytes = 0;
};

Work WorkOf(const Problem& p, const AttentionArgs& args, std::int64_t block_tokens) {
  std::vector<Sequence> sequences(static_cast<std::size_t>(BatchOf(args)));
  std::vector<std::byte> scratch(ResolveScratchBytes(p));
  ResolveArgs(p, args, true, sequences, scratch);
  Work work;
  const double per_pair = 2.0 * static_cast<double>(p.head_dim + p.head_dim_v * (p.qv ? 2 : 1));
  for (const Sequence& s : sequences) {
    work.flops += VisiblePairs(p.options, s) * static_cast<double>(p.heads_q) * per_pair;
    work.query_rows += static_cast<double>(s.seq_q * p.heads_q);
    work.keys_per_row = std::max(work.keys_per_row, static_cast<double>(s.seq_kv));
  }
  work.chunks = ChunksInOrder(p, args, sequences, std::max<std::int64_t>(block_tokens, 1));
  work.bytes = TotalBytes(work.chunks);
  return work;
}

// The instruction set in a kernel's name ("cpu.avx2.prefill.f32"); this machine's best for other names.
Isa IsaOf(const std::string& kernel) {
  for (const Isa isa : kAllIsas) {
    if (kernel.rfind("cpu." + std::string(Name(isa)) + ".", 0) == 0) return isa;
  }
  return DeviceCaps::Host().Best();
}

// The limit that a case is held against: arithmetic for prefill, reading for decode, for a mixed batch whichever of the
// two takes longer at its limit.
class Roof {
 public:
  Roof(const Problem& p, const std::string& kernel, const Work& work, Executor& executor)
      : executor_(executor), isa_(IsaOf(kernel)) {
    const bool dots = isa_ == Isa::kAvx512Bf16 && p.dtype == DType::kBF16 && p.kv_dtype == DType::kBF16;
    kind_ = dots ? probe::FlopsKind::kDotBf16 : probe::FlopsKind::kFmaF32;
    const bool random = p.page_size && p.placement == Placement::kRandom;
    if (p.phase != Phase::kPrefill && work.bytes > 0) {
      read_.emplace(executor, isa_, random ? work.chunks : JoinedByAddress(work.chunks),
                    random ? probe::ReadKind::kChunks : probe::ReadKind::kStreams);
    }
    if (read_ && p.phase == Phase::kMixed) {
      const double compute = work.flops / probe::FlopsRoof(executor, isa_, kind_, 0.01),
                   reading = work.bytes / read_->Run();
      if (compute > reading) read_.reset();
    }
    name_ = read_ ? (random ? "read_pages" : "read") : dots ? "dot_bf16" : "fma_f32";
  }

  const std::string& name() const { return name_; }
  bool reads() const { return read_.has_value(); }
  std::string how() const { return read_ ? read_->variant() : std::string("independent chains, ") + Name(isa_); }
  // Once; GB/s or GFLOP/s. `seconds`: length of an arithmetic probe.
  double Run(double seconds) {
    return (read_ ? read_->Run() : probe::FlopsRoof(executor_, isa_, kind_, seconds)) / 1e9;
  }

 private:
  Executor& executor_;
  Isa isa_;
  probe::FlopsKind kind_ = probe::FlopsKind::kFmaF32;
  std::optional<probe::ReadRoof> read_;
  std::string name_;
};

// Rows to check: all of a small case, else as many as the fp64 reference does in a fraction of a second.
std::int64_t RowsToCheck(const Problem& p, const Work& work) {
  constexpr double kMultiplications = 4e7;
  constexpr std::int64_t kMost = 64, kLeast = 4;
  const double per_row = work.keys_per_row * static_cast<double>(p.head_dim + p.head_dim_v);
  if (per_row * work.query_rows <= kMultiplications) return 0;
  return std::clamp(static_cast<std::int64_t>(kMultiplications / per_row), kLeast, kMost);
}

}  // namespace

double Quantile(std::vector<double> samples, double q) {
  if (samples.empty()) return 0;
  std::sort(samples.begin(), samples.end());
  const double at = q * static_cast<double>(samples.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, samples.size() - 1);
  return samples[below] + (at - std::floor(at)) * (samples[above] - samples[below]);
}

BenchResult MeasureCase(const std::string& text, const BenchSettings& settings) {
  BenchResult result;
  result.text = text;
  result.threads = settings.threads;
  const Problem parsed = ParseProblem(text);
  Validate(parsed);
  const std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kOpenMp, settings.threads));
  cases::Case generated = cases::MakeCase(parsed);
  const Problem& p = generated.problem();
  const AttentionArgs& args = generated.args();
  const DeviceCaps& caps = DeviceCaps::Host();
  const Selection selection =
      settings.kernel.empty() ? Select(p, caps) : Select(p, caps, KernelChoice{{settings.kernel}, {}});
  const Plan plan(p, selection, executor.get());
  const cases::Buffer memory(plan.workspace_bytes());
  const Workspace workspace{memory.data(), memory.size()};
  result.kernel = selection.kernel;

  const Work work = WorkOf(p, args, plan.shape().kv_block_tokens);
  result.intensity = work.bytes > 0 ? work.flops / work.bytes : 0;
  result.pages = PageKind(args.k.data, static_cast<std::size_t>(args.k.Elements()) * SizeOf(args.k.dtype));

  // Warm-up: page tables, the executor's threads, the clock; and how long a launch takes.
  double launch_seconds = 1e30;
  const auto warm_up = Clock::now();
  for (int i = 0; i < 3 && !Interrupted(); ++i) {
    const auto start = Clock::now();
    Launch(plan, args, workspace);
    launch_seconds = std::min(launch_seconds, SecondsSince(start));
    if (SecondsSince(warm_up) > settings.min_seconds) break;
  }
  if (Interrupted()) return result;
  Roof roof(p, selection.kernel, work, *executor);
  result.roof = roof.name();
  result.roof_how = roof.how();

  constexpr double kShortestTurn = 5e-4;  // launches shorter than this are timed in bundles
  constexpr int kLeastRounds = 3, kMostRounds = 2000;
  const int bundle = std::clamp(static_cast<int>(std::ceil(kShortestTurn / launch_seconds)), 1, 1000);
  const double probe_seconds = std::clamp(launch_seconds * bundle, 0.002, 0.1);
  const int rounds = settings.repeat > 0 ? settings.repeat : kMostRounds;
  std::vector<double> seconds, roofs;
  double spent = 0;
  for (int round = 0; round < rounds && !Interrupted(); ++round) {
    if (settings.repeat == 0 && round >= kLeastRounds && spent >= settings.min_seconds) break;
    roofs.push_back(roof.Run(probe_seconds));
    const auto start = Clock::now();
    for (int i = 0; i < bundle; ++i) Launch(plan, args, workspace);
    const double took = SecondsSince(start);
    seconds.push_back(took / bundle);
    spent += took;
  }
  result.rounds = static_cast<int>(seconds.size());
  const double median = Quantile(seconds, 0.5);
  result.median_ms = median * 1e3;
  result.p10_ms = Quantile(seconds, 0.1) * 1e3;
  result.p90_ms = Quantile(seconds, 0.9) * 1e3;
  if (median > 0) {
    result.gflops = work.flops / median / 1e9;
    result.gbps = work.bytes / median / 1e9;
  }
  result.roof_value = Quantile(roofs, 0.5);
  if (result.roof_value > 0)
    result.roof_percent = 100 * (roof.reads() ? result.gbps : result.gflops) / result.roof_value;
  if (!Interrupted()) {
    result.accuracy = cases::CheckAccuracy(p, args, RowsToCheck(p, work), p.seed);
    result.checked = true;
  }
  return result;
}

}  // namespace regard::cli
