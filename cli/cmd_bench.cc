// `regard bench`: measures cases against the roofs of this machine, as a table, as JSON, as a report.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/bench_case.h"
#include "cli/bench_output.h"
#include "cli/bench_rows.h"
#include "cli/case_words.h"
#include "cli/commands.h"
#include "cli/device_options.h"
#include "cli/kernel_match.h"
#include "cli/peers.h"
#include "cli/report.h"
#include "cli/suites.h"
#include "regard/status.h"
#include "src/cases/buffer.h"
#include "src/cases/on_device.h"
#include "src/cpu/probe/roof.h"

namespace regard::cli {
namespace {

constexpr int kMiss = 1;

struct Options {
  std::vector<std::string> words;
  bool quick = false;
  std::string suite, rows, json, report, kernel, backend, peers;
  bool list = false, require_goals = false, counters = false, profile = false;
  int threads = 0;
  int repeat = 0;
  double min_seconds = 0;
};

// A line on a terminal's stderr that says what is being measured; silent elsewhere.
void Progress(std::size_t done, std::size_t all, const std::string& text) {
  if (!isatty(STDERR_FILENO)) return;
  if (done == all) {
    std::fprintf(stderr, "\r\033[K");
  } else {
    std::fprintf(stderr, "\r\033[K%zu/%zu  %.100s", done + 1, all, text.c_str());
  }
  std::fflush(stderr);
}

void WriteFile(const std::string& field, const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) throw Error(field, path, "a file that can be written");
}

// Refuses a path that cannot be written before anything is measured; what lies there stays until the results come.
void CheckWritable(const std::string& field, const std::string& path) {
  if (!path.empty() && path != "-" && !std::ofstream(path, std::ios::app)) {
    throw Error(field, path, "a file that can be written");
  }
}

// Measures one after another until all are done or Ctrl-C comes; results without a single round are left out.
std::vector<BenchResult> MeasureAll(const std::vector<std::string>& cases, const BenchSettings& settings) {
  std::vector<BenchResult> results;
  for (std::size_t i = 0; i < cases.size() && !Interrupted(); ++i) {
    Progress(i, cases.size(), cases[i]);
    BenchResult result = MeasureCase(cases[i], settings);
    if (result.rounds > 0) results.push_back(std::move(result));
  }
  Progress(cases.size(), cases.size(), "");
  return results;
}

Sweep MeasureLengths(const std::string& name, const std::string& before, const std::string& after,
                     const std::vector<std::int64_t>& lengths, const BenchSettings& settings) {
  std::vector<std::string> cases;
  for (const std::int64_t n : lengths) cases.push_back(fmt::format(fmt::runtime(before), n) + after);
  Sweep sweep{name, {}, MeasureAll(cases, settings)};
  for (std::size_t i = 0; i < sweep.results.size(); ++i) sweep.xs.push_back(static_cast<double>(lengths[i]));
  return sweep;
}

// The first prefill and the first decode case on 1, 2, 4, ... threads.
std::vector<Sweep> MeasureThreads(const std::vector<std::string>& cases, const BenchSettings& settings) {
  std::vector<int> counts;
  for (int n = 1; n < settings.threads; n *= 2) counts.push_back(n);
  counts.push_back(settings.threads);
  std::vector<Sweep> sweeps;
  for (const Phase phase : {Phase::kPrefill, Phase::kDecode}) {
    const auto found =
        std::find_if(cases.begin(), cases.end(), [&](const auto& c) { return ParseProblem(c).phase == phase; });
    if (found == cases.end()) continue;
    Sweep sweep{*found, {}, {}};
    for (const int threads : counts) {
      BenchSettings with = settings;
      with.threads = threads;
      for (BenchResult& r : MeasureAll({*found}, with)) {
        sweep.xs.push_back(threads);
        sweep.results.push_back(std::move(r));
      }
    }
    sweeps.push_back(std::move(sweep));
  }
  return sweeps;
}

void MeasureRoofs(const BenchSettings& settings, ReportData* data) {
  const std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kOpenMp, settings.threads));
  const DeviceCaps& caps = DeviceCaps::Host();
  const cases::Buffer memory(static_cast<std::size_t>(std::clamp<std::int64_t>(caps.l3_bytes * 8, 128 << 20, 1 << 30)));
  std::fill_n(memory.data(), memory.size(), std::byte{1});
  probe::ReadRoof read(*executor, caps.Best(), {{memory.data(), memory.size()}}, probe::ReadKind::kStreams);
  std::vector<double> reads, fmas, dots;
  for (int round = 0; round < 7; ++round) {
    reads.push_back(read.Run() / 1e9);
    fmas.push_back(probe::FlopsRoof(*executor, caps.Best(), probe::FlopsKind::kFmaF32, 0.01) / 1e9);
    dots.push_back(probe::FlopsRoof(*executor, caps.Best(), probe::FlopsKind::kDotBf16, 0.01) / 1e9);
  }
  data->read_gbps = Quantile(reads, 0.5);
  data->fma_gflops = Quantile(fmas, 0.5);
  data->dot_gflops = Quantile(dots, 0.5);
}

ReportData MeasureReport(const std::vector<std::string>& cases, const std::vector<BenchResult>& results, bool quick,
                         BenchSettings settings) {
  ReportData data;
  data.cpu = fmt::format("{}, {} threads", DeviceCaps::Host().name, settings.threads);
  data.best_isa = Name(DeviceCaps::Host().Best());
  data.results = results;
  if (!Interrupted()) {
    MeasureRoofs(settings, &data);
    settings.repeat = 0;
    settings.min_seconds = quick ? 0.05 : 0.4;
    std::vector<std::int64_t> prefill = {128, 256, 512}, decode = {1024, 4096, 16384};
    if (!quick) prefill.insert(prefill.end(), {1024, 2048, 4096}), decode.insert(decode.end(), {32768, 65536, 131072});
    for (const std::string dtype : {"f32", "bf16"}) {
      const std::string heads = " hq=32 hkv=8 d=128 dtype=" + dtype;
      data.prefill_lengths.push_back(
          MeasureLengths(dtype, "prefill b=1 sq={0} skv={0}", heads + " causal", prefill, settings));
      data.decode_lengths.push_back(MeasureLengths(dtype, "decode b=1 sq=1 skv={0}", heads, decode, settings));
    }
    data.decode_lengths.push_back(MeasureLengths("bf16, pages of 16 in random order", "decode b=1 sq=1 skv={0}",
                                                 " hq=32 hkv=8 d=128 dtype=bf16 page=16 placement=random", decode,
                                                 settings));
    data.threads = MeasureThreads(cases, settings);
  }
  data.complete = !Interrupted();
  return data;
}

// What to measure: cases, or the rows of a suite with goals.
struct Order {
  std::vector<std::string> cases;
  std::vector<Row> rows;
};

Order OrderOf(const Options& options) {
  const int ways = !options.words.empty() + options.quick + !options.suite.empty();
  if (ways != 1) {
    throw Error("case", ways == 0 ? "none" : "several ways of naming cases", "a CASE, or --quick, or --suite NAME");
  }
  Order order;
  if (options.words.empty()) {
    const Suite& suite = FindSuite(options.quick ? "quick" : options.suite);
    order = {suite.cases, suite.rows};
  } else {
    order.cases = JoinCases(options.words);
  }
  if (order.rows.empty()) {
    if (!options.rows.empty()) throw Error("--rows", options.rows, "a suite with rows: --suite cpu");
    if (options.require_goals) throw Error("--require-goals", "given", "a suite with goals: --suite cpu");
    return order;
  }
  if (!options.rows.empty()) order.rows = RowsMatching(order.rows, options.rows);
  if (!options.kernel.empty() || !options.backend.empty()) {
    throw Error(options.kernel.empty() ? "--backend" : "--kernel", options.kernel + options.backend,
                "cases, or a suite without goals; rows name theirs");
  }
  if (!options.report.empty()) throw Error("--report", options.report, "cases, or a suite without goals");
  return order;
}

BenchSettings SettingsOf(const Options& options) {
  constexpr int kMostThreads = 4096;
  if (options.threads < 0 || options.threads > kMostThreads) {
    throw Error("--threads", std::to_string(options.threads), fmt::format("1 to {}, or 0 for all", kMostThreads));
  }
  if (options.repeat < 0) throw Error("--repeat", std::to_string(options.repeat), "a number of rounds, 1 or more");
  if (!(options.min_seconds >= 0 && options.min_seconds <= 3600)) {
    throw Error("--min-time", fmt::format("{}", options.min_seconds), "seconds, 0 to 3600");
  }
  BenchSettings settings;
  settings.threads = options.threads > 0 ? options.threads : DeviceCaps::Host().threads;
  settings.repeat = options.repeat;
  settings.min_seconds = options.min_seconds > 0 ? options.min_seconds : options.quick ? 0.3 : 1.0;
  settings.kernel = PatternOf(options.kernel, options.backend);
  settings.counters = options.counters;
  settings.profile = options.profile;
  return settings;
}

// Measures one row after another until all are done or Ctrl-C comes.
std::vector<RowResult> MeasureRows(const std::vector<Row>& rows, const BenchSettings& settings, ReadRatio* ratio) {
  std::vector<RowResult> results;
  for (std::size_t i = 0; i < rows.size() && !Interrupted(); ++i) {
    Progress(i, rows.size(), rows[i].name);
    RowResult result = MeasureRow(rows[i], settings, ratio, results);
    if (result.result.rounds > 0 && !Interrupted()) results.push_back(std::move(result));
  }
  Progress(rows.size(), rows.size(), "");
  return results;
}

BenchRun Measure(const Order& order, const BenchSettings& settings) {
  BenchRun run;
  run.threads = settings.threads;
  run.counters = settings.counters;
  run.with_goals = !order.rows.empty();
  if (run.with_goals) {
    const bool on_cpu = std::any_of(order.rows.begin(), order.rows.end(),
                                    [](const Row& r) { return !r.kernel.starts_with("cuda"); });
    const auto ratio = on_cpu && ReadRatio::HasTwoCores() ? std::make_unique<ReadRatio>() : nullptr;
    if (ratio) run.read_ratio = Quantile(ratio->Measure(), 0.5);
    run.rows = MeasureRows(order.rows, settings, ratio.get());
    return run;
  }
  for (BenchResult& result : MeasureAll(order.cases, settings)) {
    RowResult row;
    row.row.text = result.text;
    row.result = std::move(result);
    run.rows.push_back(std::move(row));
  }
  return run;
}

// All bad input before the first measurement.
void Validate(const Order& order) {
  for (const std::string& text : order.cases) regard::Validate(ParseProblem(text));
  for (const Row& row : order.rows) {
    regard::Validate(ParseProblem(row.text));
    cases::DeviceOfKernels(row.kernel);  // a GPU that a row needs is there
    if (!row.other.empty()) regard::Validate(ParseProblem(row.other));
  }
}

// What is put to other libraries: cases as they are; of a suite of rows the dense ones with a goal of their own.
std::vector<std::string> CasesForPeers(const Order& order) {
  std::vector<std::string> cases = order.cases;
  for (const Row& row : order.rows) {
    if (row.figure == Figure::kRoof && row.kernel.empty() && !ParseProblem(row.text).page_size) {
      cases.push_back(row.text);
    }
  }
  return cases;
}

void SetBestPeers(const std::vector<PeerComparison>& comparisons, BenchRun* run) {
  for (RowResult& row : run->rows) {
    for (const PeerComparison& c : comparisons) {
      const PeerFigure* best = c.Best();
      if (c.text != row.row.text || !best || row.row.figure != Figure::kRoof) continue;
      row.best_peer = PeerRatio{best->name, best->version, best->median_ms / c.regard_ms};
    }
  }
}

void Bench(const Options& options, int& exit_code) {
  const Order order = OrderOf(options);
  if (options.list) {
    for (const std::string& text : order.cases) fmt::print("{}\n", text);
    for (const Row& row : order.rows) fmt::print("{}\n", row.text);
    return;
  }
  const BenchSettings settings = SettingsOf(options);
  Validate(order);
  CheckWritable("--json", options.json);
  CheckWritable("--report", options.report);
  const PeerSettings peers = FindPeers(options.peers);
  BenchRun run = Measure(order, settings);
  const std::vector<PeerComparison> comparisons = MeasurePeers(CasesForPeers(order), settings, peers);
  SetBestPeers(comparisons, &run);
  nlohmann::ordered_json json = RunJson(run);
  AddPeers(comparisons, &json["results"]);

  const bool json_on_stdout = options.json == "-";
  std::FILE* people = json_on_stdout ? stderr : stdout;
  std::fputs(RunText(run).c_str(), people);
  std::fputs(PeersText(comparisons).c_str(), people);
  if (json_on_stdout) fmt::print("{}\n", json.dump(2));
  if (!options.json.empty() && !json_on_stdout) WriteFile("--json", options.json, json.dump(2) + "\n");
  if (!options.report.empty()) {
    std::vector<BenchResult> results;
    for (const RowResult& row : run.rows) results.push_back(row.result);
    WriteFile("--report", options.report, ReportHtml(MeasureReport(order.cases, results, options.quick, settings)));
    fmt::print(people, "report: {}\n", options.report);
  }
  if (Interrupted()) {
    const bool rows = run.with_goals;
    fmt::print(stderr, "regard: interrupted after {} of {} {}\n", run.rows.size(),
               rows ? order.rows.size() : order.cases.size(), rows ? "rows" : "cases");
  }
  const auto good = [&](const RowResult& r) { return r.result.ok() && (!options.require_goals || r.reached()); };
  if (!std::all_of(run.rows.begin(), run.rows.end(), good)) exit_code = kMiss;
}

std::string SuiteHelp() {
  std::string text = "A named list of cases:";
  for (const Suite& suite : Suites()) text += fmt::format(" {} ({});", suite.name, suite.about);
  text.pop_back();
  return text;
}

}  // namespace

void RegisterBench(CLI::App& app, int& exit_code) {
  auto* command = app.add_subcommand("bench", "Time cases against the measured roofs of this machine");
  auto options = std::make_shared<Options>();
  command->add_option("case", options->words, "Cases, each as one quoted line or as words")->type_name("CASE...");
  command->add_flag("--quick", options->quick, "A few small cases, some seconds");
  command->add_option("--suite", options->suite, SuiteHelp())->type_name("NAME");
  command->add_option("--rows", options->rows, "Only rows of the suite whose name or case contains this text")
      ->type_name("TEXT");
  command->add_flag("--list", options->list, "Only name the cases");
  command->add_flag("--require-goals", options->require_goals, "Exit with 1 where a row misses its goal");
  command->add_flag("--counters", options->counters,
                    "Count cycles, instructions and cache misses a visible pair, where the system lets it");
  command->add_flag("--profile", options->profile,
                    "Say how much of a launch packing, both products, softmax and merging take (CPU kernels)");
  command->add_option("--threads", options->threads, "Threads; default: REGARD_THREADS, or all cores");
  command->add_option("--kernel", options->kernel, "Only kernels of this name or dotted prefix (cpu.avx2, reference)");
  AddBackend(*command, options->backend);
  command->add_option("--repeat", options->repeat, "Rounds a case; default: as many as --min-time takes");
  command->add_option("--min-time", options->min_seconds, "Seconds of launches a case; default 1, with --quick 0.3");
  command
      ->add_option("--json", options->json,
                   "Write results as JSON to a file, or - for stdout (the table then goes to stderr)")
      ->type_name("FILE");
  command
      ->add_option("--peers", options->peers,
                   "Compare with other libraries: a Python that has them, or auto (docs/benchmarks.md)")
      ->type_name("PYTHON");
  command->add_option("--report", options->report, "Write an HTML page with tables and plots; measures more for it")
      ->type_name("FILE");
  command->callback([options, &exit_code] { Bench(*options, exit_code); });
}

}  // namespace regard::cli
