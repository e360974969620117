#include "cli/bench_rows.h"

#include <algorithm>
#include <memory>
#include <thread>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/device_options.h"
#include "cli/kernel_alone.h"

namespace regard::cli {
namespace {

// The median over rounds of ratio(seconds of the round's cases).
template <class Ratio>
double MedianOf(const TurnResult& turns, Ratio ratio) {
  std::vector<double> ratios;
  for (const std::vector<double>& round : turns.seconds) ratios.push_back(ratio(round));
  return Quantile(ratios, 0.5);
}

void MeasureRoof(PreparedCase& prepared, const BenchSettings& settings, ReadRatio* ratio, RowResult* row) {
  const Goals& goals = row->row.goals;
  const bool by_ratio = goals.one_where_memory_scales && settings.threads > 1 && ratio != nullptr;
  std::vector<double> ratios;
  if (by_ratio) ratios = ratio->Measure();
  row->result = MeasureTurns({&prepared}, true, settings).result;
  row->value = row->result.roof_percent;
  if (!by_ratio) return;
  const std::vector<double> after = ratio->Measure();
  ratios.insert(ratios.end(), after.begin(), after.end());
  row->read_ratio = Quantile(ratios, 0.5);
  row->goal = GoalFor(goals, settings.threads, row->read_ratio);
  row->note = fmt::format("2 threads read x {:.2f}: goal of {}", *row->read_ratio,
                          *row->read_ratio > kScalesFrom ? "1 thread" : "2 threads");
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

bool ReadRatio::HasTwoCores() {
  return std::max(DeviceCaps::Host().threads, static_cast<int>(std::thread::hardware_concurrency())) >= 2;
}

ReadRatio::ReadRatio()
    : memory_(static_cast<std::size_t>(std::clamp<std::int64_t>(DeviceCaps::Host().l3_bytes * 8, 128 << 20, 1 << 30))),
      one_(MakeExecutor(ExecutorKind::kOpenMp, 1)),
      two_(MakeExecutor(ExecutorKind::kOpenMp, 2)) {
  std::fill_n(memory_.data(), memory_.size(), std::byte{1});
  const std::vector<probe::Chunk> chunks = {{memory_.data(), memory_.size()}};
  alone_.emplace(*one_, DeviceCaps::Host().Best(), chunks, probe::ReadKind::kStreams);
  both_.emplace(*two_, DeviceCaps::Host().Best(), chunks, probe::ReadKind::kStreams);
}

std::vector<double> ReadRatio::Measure() {
  constexpr int kRounds = 9;
  std::vector<double> ratios;
  for (int round = 0; round < kRounds && (round == 0 || !Interrupted()); ++round) {
    const double rate = alone_->Run();
    ratios.push_back(both_->Run() / rate);
  }
  return ratios;
}

RowResult MeasureRow(const Row& row, const BenchSettings& given, ReadRatio* ratio,
                     const std::vector<RowResult>& before) {
  BenchSettings settings = given;
  if (!row.kernel.empty()) settings.kernel = row.kernel;
  RowResult measured;
  measured.row = row;
  measured.goal = GoalFor(row.goals, settings.threads, std::nullopt);
  if (row.figure == Figure::kWorkspace) {
    MeasureWorkspace(settings, before, &measured);
    return measured;
  }
  const std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kOpenMp, settings.threads));
  PreparedCase prepared(row.text, settings.kernel, *executor);
  switch (row.figure) {
    case Figure::kRoof:
      MeasureRoof(prepared, settings, ratio, &measured);
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

}  // namespace regard::cli
