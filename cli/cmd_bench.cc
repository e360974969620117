// `regard bench`: measures cases against the roofs of this machine, as a table, as JSON, as a report.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/bench_case.h"
#include "cli/case_words.h"
#include "cli/commands.h"
#include "cli/device_options.h"
#include "cli/peers.h"
#include "cli/report.h"
#include "cli/suites.h"
#include "cli/text_table.h"
#include "regard/status.h"
#include "src/cases/buffer.h"
#include "src/cpu/probe/roof.h"

namespace regard::cli {
namespace {

constexpr int kMiss = 1;

struct Options {
  std::vector<std::string> words;
  bool quick = false;
  std::string suite, json, report, kernel, peers;
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

std::string TableText(const std::vector<BenchResult>& results) {
  TextTable table({{"kernel"},
                   {"threads", Align::kRight},
                   {"median ms", Align::kRight},
                   {"p10", Align::kRight},
                   {"p90", Align::kRight},
                   {"GFLOP/s", Align::kRight},
                   {"GB/s", Align::kRight},
                   {"roof"},
                   {"its value", Align::kRight},
                   {"of roof", Align::kRight},
                   {"max error", Align::kRight},
                   {"check"},
                   {"case"}});
  for (const BenchResult& r : results) {
    table.Row({r.kernel, fmt::format("{}", r.threads), fmt::format("{:.3f}", r.median_ms),
               fmt::format("{:.3f}", r.p10_ms), fmt::format("{:.3f}", r.p90_ms), fmt::format("{:.1f}", r.gflops),
               fmt::format("{:.1f}", r.gbps), r.roof,
               fmt::format("{:.1f} {}", r.roof_value, r.reads() ? "GB/s" : "GFLOP/s"),
               fmt::format("{:.1f} %", r.roof_percent), r.checked ? fmt::format("{:.1e}", r.accuracy.out_error) : "-",
               !r.checked ? "-"
               : r.ok()   ? "good"
                          : "MISS",
               r.text});
  }
  std::string text = table.Text();
  for (const BenchResult& r : results) {
    if (!r.ok())
      text += fmt::format("MISS: {:.2f} x the bound, {}\nREPRO: regard check \"{}\"\n", r.accuracy.ratio(),
                          r.accuracy.where, r.text);
  }
  return text;
}

// Roofs in plain words: which loop was best and on which pages.
std::string FootText(const std::vector<BenchResult>& results) {
  std::string text =
      "\nGFLOP/s counts visible pairs only; GB/s counts each visible K and V byte once; the roof is the median "
      "over the same rounds.\n";
  std::vector<std::string> said;
  for (const BenchResult& r : results) {
    const std::string line = r.reads() ? fmt::format("{}: {}; K on {}", r.roof, r.roof_how, r.pages)
                                      : fmt::format("{}: {}", r.roof, r.roof_how);
    if (std::find(said.begin(), said.end(), line) == said.end()) said.push_back(line);
  }
  for (const std::string& line : said) text += line + "\n";
  return text;
}

nlohmann::ordered_json JsonOf(const std::vector<BenchResult>& results) {
  auto array = nlohmann::ordered_json::array();
  for (const BenchResult& r : results) {
    nlohmann::ordered_json error;  // null: not checked
    if (r.checked) error = r.accuracy.out_error;
    array.push_back({{"case", r.text},
                     {"kernel", r.kernel},
                     {"threads", r.threads},
                     {"median_ms", r.median_ms},
                     {"p10_ms", r.p10_ms},
                     {"p90_ms", r.p90_ms},
                     {"gflops", r.gflops},
                     {"gbps", r.gbps},
                     {"roof", r.roof},
                     {"roof_value", r.roof_value},
                     {"roof_percent", r.roof_percent},
                     {"max_error", error}});
  }
  return array;
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

std::vector<std::string> CasesOf(const Options& options) {
  const int ways = !options.words.empty() + options.quick + !options.suite.empty();
  if (ways != 1) {
    throw Error("case", ways == 0 ? "none" : "several ways of naming cases", "a CASE, or --quick, or --suite NAME");
  }
  if (options.quick) return FindSuite("quick").cases;
  if (!options.suite.empty()) return FindSuite(options.suite).cases;
  return JoinCases(options.words);
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
  settings.kernel = options.kernel;
  return settings;
}

void Bench(const Options& options, int& exit_code) {
  const std::vector<std::string> cases = CasesOf(options);
  const BenchSettings settings = SettingsOf(options);
  for (const std::string& text : cases) Validate(ParseProblem(text));  // all bad input before the first measurement
  CheckWritable("--json", options.json);
  CheckWritable("--report", options.report);
  const PeerSettings peers = FindPeers(options.peers);
  const std::vector<BenchResult> results = MeasureAll(cases, settings);
  const std::vector<PeerComparison> comparisons = MeasurePeers(cases, settings, peers);
  nlohmann::ordered_json json = JsonOf(results);
  AddPeers(comparisons, &json);

  const bool json_on_stdout = options.json == "-";
  std::FILE* people = json_on_stdout ? stderr : stdout;
  std::fputs((TableText(results) + FootText(results)).c_str(), people);
  std::fputs(PeersText(comparisons).c_str(), people);
  if (json_on_stdout) fmt::print("{}\n", json.dump(2));
  if (!options.json.empty() && !json_on_stdout) WriteFile("--json", options.json, json.dump(2) + "\n");
  if (!options.report.empty()) {
    WriteFile("--report", options.report, ReportHtml(MeasureReport(cases, results, options.quick, settings)));
    fmt::print(people, "report: {}\n", options.report);
  }
  if (Interrupted()) fmt::print(stderr, "regard: interrupted after {} of {} cases\n", results.size(), cases.size());
  if (!std::all_of(results.begin(), results.end(), [](const BenchResult& r) { return r.ok(); })) exit_code = kMiss;
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
  command->add_option("--threads", options->threads, "Threads; default: REGARD_THREADS, or all cores");
  command->add_option("--kernel", options->kernel, "Only kernels of this name or dotted prefix (cpu.avx2, reference)");
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
