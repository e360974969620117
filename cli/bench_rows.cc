#include "cli/bench_rows.h"

#include <algorithm>
#include <memory>
#include <thread>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/device_options.h"
#include "cli/kernel_alone.h"
#include "src/cases/buffer.h"
#include "src/cpu/probe/roof.h"

namespace regard::cli {
namespace {

// The median over rounds of ratio(seconds of the round's cases).
template <class Ratio>
double MedianOf(const TurnResult& turns, Ratio ratio) {
  std::vector<double> ratios;
  for (const std::vector<double>& round : turns.seconds) ratios.push_back(ratio(round));
  return Quantile(ratios, 0.5);
}

void MeasureRatio(PreparedCase& first, PreparedCase& second, const BenchSettings& settings, RowResult* row) {
  TurnResult turns = MeasureTurns({&first, &second}, true, settings);
  const bool per_pair = row->row.figure == Figure::kTimePerPair;
  const double pairs = per_pair && first.work().pairs > 0 ? second.work().pairs / first.work().pairs : 1;
  row->value = MedianOf(turns, [&](const std::vector<double>& seconds) {
    return row->row.figure == Figure::kSpeed ? seconds[1] / seconds[0] : pairs * seconds[0] / seconds[1];
  });
  row->result = std::move(turns.result);
}

// The whole against its sequences one by one, each with the selection and the plan that it gets alone.
void MeasureParts(PreparedCase& whole, const BenchSettings& settings, RowResult* row) {
  std::vector<PreparedCase> parts;
  std::vector<PreparedCase*> cases = {&whole};
  for (std::int64_t b = 0; b < whole.sequences(); ++b) parts.emplace_back(whole, b);
  for (PreparedCase& part : parts) cases.push_back(&part);
  TurnResult turns = MeasureTurns(cases, false, settings);
  row->value = MedianOf(turns, [](const std::vector<double>& seconds) {
    double sum = 0;
    for (std::size_t part = 1; part < seconds.size(); ++part) sum += seconds[part];
    return seconds[0] / sum;
  });
  row->result = std::move(turns.result);
  row->note = fmt::format("{} parts", parts.size());
  // The parts wrote the same rows of out: the whole's own output is checked once more.
  if (Interrupted()) return;
  whole.PoisonOutput();
  whole.Launch();
  const cases::Accuracy accuracy = whole.Check();
  if (!accuracy.ok()) row->result.accuracy = accuracy;
}

void MeasureOverhead(PreparedCase& prepared, const BenchSettings& settings, RowResult* row) {
  constexpr int kCalls = 200;  // a turn, of some microseconds each
  constexpr int kRounds = 101;
  row->result = MeasureTurns({&prepared}, true, settings).result;
  if (Interrupted()) return;
  prepared.PoisonOutput();
  std::vector<double> overheads, kernels;
  for (int round = 0; round < kRounds && !Interrupted(); ++round) {
    const double launch = prepared.Seconds(kCalls);
    const KernelAlone kernel(prepared);
    kernel.Seconds(kCalls / 10);
    kernels.push_back(kernel.Seconds(kCalls));
    overheads.push_back(launch - kernels.back());
  }
  row->value = Quantile(overheads, 0.5) * 1e6;
  row->note = fmt::format("kernel alone {:.2f} us", Quantile(kernels, 0.5) * 1e6);
  const cases::Accuracy accuracy = prepared.Check();
  if (!accuracy.ok()) row->result.accuracy = accuracy;
}

void MeasureWorkspace(const BenchSettings& settings, const std::vector<RowResult>& before, RowResult* row) {
  const auto same = [&](const RowResult& r) {
    return r.row.text == row->row.text && r.row.kernel == row->row.kernel && r.result.rounds > 0;
  };
  const auto found = std::find_if(before.begin(), before.end(), same);
  if (found != before.end()) {
    row->result = found->result;
  } else {
    BenchSettings once = settings;
    once.min_seconds = 0;
    row->result = MeasureCase(row->row.text, once);
  }
  const double allowed = AllowedWorkspace(ParseProblem(row->row.text), row->result.kernel, settings.threads);
  row->value = static_cast<double>(row->result.workspace_bytes) / allowed;
  row->note = fmt::format("{} of {}", Bytes(static_cast<double>(row->result.workspace_bytes)), Bytes(allowed));
}

}  // namespace

RowResult MeasureRow(const Row& row, const BenchSettings& given, std::optional<double> read_ratio,
                     const std::vector<RowResult>& before) {
  BenchSettings settings = given;
  if (!row.kernel.empty()) settings.kernel = row.kernel;
  RowResult measured;
  measured.row = row;
  measured.goal = GoalFor(row.goals, settings.threads, read_ratio);
  if (row.figure == Figure::kWorkspace) {
    MeasureWorkspace(settings, before, &measured);
    return measured;
  }
  const std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kOpenMp, settings.threads));
  PreparedCase prepared(row.text, settings.kernel, *executor);
  switch (row.figure) {
    case Figure::kRoof:
      measured.result = MeasureTurns({&prepared}, true, settings).result;
      measured.value = measured.result.roof_percent;
      break;
    case Figure::kParts:
      MeasureParts(prepared, settings, &measured);
      break;
    case Figure::kOverhead:
      MeasureOverhead(prepared, settings, &measured);
      break;
    default: {
      PreparedCase other(row.other, settings.kernel, *executor);
      MeasureRatio(prepared, other, settings, &measured);
    }
  }
  return measured;
}

std::optional<double> MeasureReadRatio() {
  const DeviceCaps& caps = DeviceCaps::Host();
  if (std::max(caps.threads, static_cast<int>(std::thread::hardware_concurrency())) < 2) return std::nullopt;
  const cases::Buffer memory(static_cast<std::size_t>(std::clamp<std::int64_t>(caps.l3_bytes * 8, 128 << 20, 1 << 30)));
  std::fill_n(memory.data(), memory.size(), std::byte{1});
  const std::vector<probe::Chunk> chunks = {{memory.data(), memory.size()}};
  const std::unique_ptr<Executor> one(MakeExecutor(ExecutorKind::kOpenMp, 1));
  const std::unique_ptr<Executor> two(MakeExecutor(ExecutorKind::kOpenMp, 2));
  probe::ReadRoof alone(*one, caps.Best(), chunks, probe::ReadKind::kStreams);
  probe::ReadRoof both(*two, caps.Best(), chunks, probe::ReadKind::kStreams);
  constexpr int kRounds = 9;
  std::vector<double> ratios;
  for (int round = 0; round < kRounds && !Interrupted(); ++round) {
    const double rate = alone.Run();
    ratios.push_back(both.Run() / rate);
  }
  return Quantile(ratios, 0.5);
}

}  // namespace regard::cli
