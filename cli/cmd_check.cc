// `regard check`: every able kernel on every case, held to the accuracy rule; a bar on stderr, a table on stdout.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "cli/case_words.h"
#include "cli/commands.h"
#include "cli/kernel_match.h"
#include "cli/text_table.h"
#include "regard/status.h"
#include "src/cases/check.h"
#include "src/cases/grid.h"
#include "src/cases/on_device.h"

namespace regard::cli {
namespace {

constexpr int kMissed = 1;
constexpr std::size_t kMissesShown = 20, kMissesShownOfKernel = 3;

struct Options {
  std::vector<std::string> words;
  bool list = false, quick = false, all = false, cross = false;
  std::string kernel, backend;
  int threads = 0;
};

// A bar that redraws itself on a terminal; elsewhere a line every few seconds.
class Progress {
 public:
  void Show(std::size_t done, std::size_t total, std::size_t misses) {
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double> since = now - shown_;
    if (since.count() < (terminal_ ? 0.1 : 5.0) && !(terminal_ && done == total)) return;
    shown_ = now;
    const std::string counts = fmt::format("{}/{} cases, {} missed", done, total, misses);
    if (!terminal_) {
      fmt::print(stderr, "regard: {}\n", counts);
      return;
    }
    constexpr std::size_t kWidth = 40;
    const std::size_t filled = total > 0 ? kWidth * done / total : kWidth;
    fmt::print(stderr, "\r[{}{}] {} ", std::string(filled, '#'), std::string(kWidth - filled, '.'), counts);
    std::fflush(stderr);
    drawn_ = true;
  }
  void End() {
    if (drawn_) fmt::print(stderr, "\r{}\r", std::string(80, ' '));
    drawn_ = false;
  }

 private:
  const bool terminal_ = isatty(STDERR_FILENO) != 0;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point shown_ = std::chrono::steady_clock::now();
};

std::vector<Problem> CasesOf(const Options& options) {
  const int sources = (options.words.empty() ? 0 : 1) + (options.quick ? 1 : 0) + (options.all ? 1 : 0);
  if (sources > 1) throw Error("case", "given more than once", "CASEs, --quick or --all");
  if (options.words.empty()) return cases::Grid(options.all ? cases::GridSize::kAll : cases::GridSize::kQuick);
  std::vector<Problem> problems;
  for (const std::string& text : JoinCases(options.words)) {
    problems.push_back(ParseProblem(text));
    Validate(problems.back());
  }
  return problems;
}

// Cases that a person named must not pass because nothing ran.
void RequireAbleKernels(const std::vector<Problem>& problems, const std::vector<const KernelInfo*>& kernels) {
  for (const Problem& p : problems) {
    std::string reasons;
    bool able = false;
    for (const KernelInfo* kernel : kernels) {
      const DeviceCaps* device = cases::DeviceOfKernel(*kernel, DeviceCaps::Host());
      const DeviceCaps& caps = device ? *device : DeviceCaps::Host();  // whose refusal says that there is no GPU
      const Verdict verdict = kernel->supports(*kernel, p, caps);
      able |= verdict.accepted;
      if (!verdict.accepted && reasons.size() < 300) {
        reasons += fmt::format("; {}: {}", kernel->name, verdict.Said(caps).reason);
      }
    }
    if (!able) throw Error("case", Print(p), "a case that one of the kernels can do" + reasons);
  }
}

void PrintTable(const cases::CheckReport& report) {
  TextTable table({{"kernel"}, {"cases", Align::kRight}, {"missed", Align::kRight}, {"worst error/bound", Align::kRight},
                   {"error there", Align::kRight}});
  const cases::KernelScore* nearest = nullptr;
  for (const cases::KernelScore& score : report.kernels) {
    table.Row({score.kernel, std::to_string(score.cases), std::to_string(score.misses),
               fmt::format("{:.3f}", score.worst_ratio), fmt::format("{:.2g}", score.out_error)});
    if (!nearest || score.worst_ratio > nearest->worst_ratio) nearest = &score;
  }
  fmt::print("{}\n", table.Text());
  if (nearest && report.misses.empty()) {
    fmt::print("nearest to its bound: {} on \"{}\"\n", nearest->kernel, nearest->worst_case);
  }
}

// A few of each kernel, so that one that fails everywhere does not hide the others.
void PrintMisses(const cases::CheckReport& report) {
  std::map<std::string, std::size_t> shown_of;
  std::size_t shown = 0;
  for (const cases::Miss& miss : report.misses) {
    if (shown == kMissesShown || ++shown_of[miss.kernel] > kMissesShownOfKernel) continue;
    ++shown;
    fmt::print("MISS {}: {}\nREPRO: regard check \"{}\" {}\n", miss.kernel, miss.what, miss.problem,
               miss.cross ? "--cross" : "--kernel " + miss.kernel);
  }
  if (shown < report.misses.size()) fmt::print("... and {} more\n", report.misses.size() - shown);
}

int Check(const Options& options) {
  const std::vector<Problem> problems = CasesOf(options);
  if (options.list) {
    for (const Problem& p : problems) fmt::print("{}\n", Print(p));
    return 0;
  }
  const std::string pattern = PatternOf(options.kernel, options.backend);
  const std::vector<const KernelInfo*> kernels = KernelsMatching(pattern);
  cases::DeviceOfKernels(pattern);  // a GPU that is asked for is there
  if (!options.words.empty()) RequireAbleKernels(problems, kernels);

  std::unique_ptr<Executor> executor;
  if (options.threads > 0) executor.reset(MakeExecutor(ExecutorKind::kOpenMp, options.threads));
  Progress progress;
  cases::CheckOptions check;
  check.cross = options.cross;
  check.reference_too = !pattern.empty();
  check.executor = executor.get();
  check.interrupted = [] { return Interrupted(); };
  check.progress = [&](std::size_t done, std::size_t total, std::size_t misses) { progress.Show(done, total, misses); };

  const auto begin = std::chrono::steady_clock::now();
  const cases::CheckReport report = cases::RunCheck(problems, kernels, check);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  progress.End();

  PrintTable(report);
  PrintMisses(report);
  std::string notes;
  if (report.sampled > 0) notes += fmt::format(", {} large ones on sampled rows", report.sampled);
  if (report.unable > 0) notes += fmt::format(", {} beyond these kernels", report.unable);
  if (report.compared > 0) notes += fmt::format(", {} pairs of kernels compared", report.compared);
  fmt::print("{} cases, {} runs, {:.1f} s{}: {}\n", report.cases, report.runs, took.count(), notes,
             report.interrupted      ? "interrupted"
             : report.misses.empty() ? "all within the accuracy rule"
                                     : fmt::format("{} missed", report.misses.size()));
  return report.misses.empty() ? 0 : kMissed;
}

}  // namespace

void RegisterCheck(CLI::App& app, int& exit_code) {
  auto* command = app.add_subcommand("check", "Hold every kernel to the accuracy rule against the fp64 reference");
  auto options = std::make_shared<Options>();
  command->add_option("case", options->words, "Cases, as quoted lines or as words (default: --quick)")->type_name("CASE");
  command->add_flag("--quick", options->quick, "A sample of the grid, in seconds");
  command->add_flag("--all", options->all, "The whole grid: every type, head dim, length, layout, option and pair of options");
  command->add_flag("--list", options->list, "Only name the cases");
  command->add_flag("--cross", options->cross,
                    "Compare kernels with each other too: equal numerics give equal bits");
  command->add_option("--kernel", options->kernel, "Only this kernel, or kernels of this prefix")->type_name("PATTERN");
  AddBackend(*command, options->backend);
  command->add_option("--threads", options->threads, "Threads (default: REGARD_THREADS, or all cores)")
      ->check(CLI::Range(1, 4096));
  command->callback([options, &exit_code] { exit_code = Check(*options); });
}

}  // namespace regard::cli
