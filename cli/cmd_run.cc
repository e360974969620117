// `regard run`: one call, on generated inputs or on tensors from .npy files; which kernel ran, what came out, whether it
// is right, how long it took.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "cli/case_words.h"
#include "cli/commands.h"
#include "cli/kernel_match.h"
#include "cli/npy.h"
#include "cli/tensor_call.h"
#include "regard/attention.h"
#include "regard/status.h"
#include "src/cases/cases.h"
#include "src/cases/on_device.h"
#include "src/cases/oracle.h"

namespace regard::cli {
namespace {

constexpr int kMissed = 1;
constexpr double kExpectF32 = 1e-5;       // allowed distance from an --expect file for f32 inputs
constexpr double kRepeatBelowSeconds = 0.5;  // a faster launch is repeated, and the best of three printed
constexpr int kLaunches = 3;

struct Options {
  std::vector<std::string> words;
  TensorFiles files;
  std::string expect, out, lse_out, kernel, backend;
  int threads = 0;
};

struct Timing {
  double seconds = 0;
  int launches = 1;
};

Timing LaunchTimed(const Plan& plan, const BackwardArgs& call) {
  const cases::CaseOnDevice run(plan, call);
  Timing timing{std::numeric_limits<double>::infinity(), 0};
  do {
    timing.seconds = std::min(timing.seconds, run.Seconds(1));
    ++timing.launches;
  } while (timing.seconds < kRepeatBelowSeconds && timing.launches < kLaunches && !Interrupted());
  run.Finish();
  return timing;
}

// Largest |out - expected| and where it is; NaN only where both have one.
struct Distance {
  double worst = 0;
  std::int64_t element = 0;
  double got = 0, expected = 0;
};

Distance DistanceFrom(const TensorView& out, const TensorView& expected) {
  if (!IsFloat(expected.dtype)) throw Error("--expect", expected.Describe(), "f32, f16 or bf16");
  bool same = out.rank == expected.rank;
  for (int d = 0; d < out.rank && same; ++d) same = out.shape[d] == expected.shape[d];
  if (!same) throw Error("--expect", expected.Describe(), "the shape of out, " + out.Describe());
  Distance distance;
  // Row-major element n of `out`, which may be strided; the file's tensor is contiguous.
  for (std::int64_t n = 0; n < expected.Elements(); ++n) {
    std::int64_t offset = 0, rest = n;
    for (int d = out.rank - 1; d >= 0; --d) {
      offset += rest % out.shape[d] * out.stride[d];
      rest /= out.shape[d];
    }
    const double got = LoadFloat(out.data, out.dtype, offset), want = LoadFloat(expected.data, expected.dtype, n);
    if (got == want || (std::isnan(got) && std::isnan(want))) continue;
    const double difference = std::fabs(got - want);
    if (difference <= distance.worst) continue;
    const double worst = std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
    if (worst > distance.worst) distance = {worst, n, got, want};
  }
  return distance;
}

const char* Judgement(bool good) { return good ? "ok" : "MISS"; }

// Against --expect. f32 in: 1e-5. Narrower types: the bound of the accuracy rule, plus the rounding of the file itself.
bool CompareWithFile(const Problem& p, const AttentionArgs& args, const std::string& path) {
  const NpyArray file = ReadNpy("--expect", path);
  const Distance distance = DistanceFrom(args.out, file.view);
  double allowed = kExpectF32;
  if (p.dtype != DType::kF32 || file.view.dtype != DType::kF32) {
    allowed = cases::CheckAccuracy(p, args, cases::SampledRows(p)).out_bound;
    const double half_step = file.view.dtype == DType::kF16 ? 0x1p-11 : file.view.dtype == DType::kBF16 ? 0x1p-8 : 0;
    double largest = 0;
    for (std::int64_t n = 0; n < file.view.Elements(); ++n) {
      const double x = std::fabs(LoadFloat(file.view.data, file.view.dtype, n));
      if (std::isfinite(x)) largest = std::max(largest, x);
    }
    allowed += half_step * largest;
  }
  const bool good = distance.worst <= allowed;
  fmt::print("error     {:.3g} of {:.3g} allowed, against {}   {}\n", distance.worst, allowed, path, Judgement(good));
  if (!good) {
    fmt::print("worst     element {} (row-major): got {:.9g} expected {:.9g}\n", distance.element, distance.got,
               distance.expected);
  }
  return good;
}

bool CompareWithReference(const Problem& p, const BackwardArgs& call) {
  const std::int64_t rows = cases::SampledRows(p);
  const cases::CallOracle oracle(p, call, rows);
  const cases::Accuracy accuracy = oracle.Compare(call);
  const std::string basis = rows > 0 ? fmt::format("the fp64 reference on {} rows", oracle.rows()) : "the fp64 reference";
  if (accuracy.gradients.empty()) {
    fmt::print("error     {:.3g} of {:.3g} allowed, against {}   {}\n", accuracy.out_error, accuracy.out_bound, basis,
               Judgement(accuracy.ok()));
    if (call.forward.lse) fmt::print("lse       error {:.3g} of {:.3g} allowed\n", accuracy.lse_error, accuracy.lse_bound);
  } else {
    fmt::print("errors    against {}   {}\n", basis, Judgement(accuracy.ok()));
    for (const cases::GradientAccuracy& g : accuracy.gradients) {
      fmt::print("{:<10}error {:.3g} of {:.3g} allowed\n", g.name, g.error, g.bound);
    }
  }
  if (!accuracy.ok()) fmt::print("worst     {}\n", accuracy.where);
  return accuracy.ok();
}

void PrintOutputs(const Problem& p, const BackwardArgs& call) {
  const auto print = [](const char* name, const TensorView& view) {
    fmt::print("{:<10}{}  checksum {:016x}\n", name, view.Describe(), cases::Checksum(view));
  };
  if (p.phase != Phase::kBackward) return print("out", call.forward.out);
  print("dq", call.dq);
  print("dk", call.dk);
  print("dv", call.dv);
  if (call.dbias) print("dbias", *call.dbias);
  if (call.dsink) print("dsink", *call.dsink);
}

void RefuseForwardFiles(const Options& options) {
  for (const auto& [flag, path] : {std::pair{"--expect", &options.expect}, {"--out", &options.out}, {"--lse-out", &options.lse_out}}) {
    if (!path->empty()) throw Error(flag, *path, "a forward case: a backward one writes gradients, not out and lse");
  }
}

int Run(const Options& options) {
  if (!options.files.any() && options.words.empty()) throw Error("case", "absent", "a CASE, or files: --q, --k and --v");
  if (options.files.any() && !options.words.empty()) {
    throw Error("case", options.words.front(), "a CASE or files, not both; with files, options go into --options");
  }
  TensorCall from_files;
  cases::Case generated;
  Problem problem;
  if (options.files.any()) {
    from_files = LoadTensorCall(options.files, !options.lse_out.empty());
    problem = from_files.problem;
  } else {
    const std::vector<std::string> cases_given = JoinCases(options.words);
    if (cases_given.size() != 1) throw Error("case", fmt::format("{} cases", cases_given.size()), "one case");
    problem = ParseProblem(cases_given.front());
    if (problem.phase == Phase::kBackward) RefuseForwardFiles(options);
    if (!options.lse_out.empty()) problem.lse = true;
    generated = cases::MakeCase(problem);
  }
  BackwardArgs call;
  if (options.files.any()) {
    call.forward = from_files.args;
  } else {
    call = generated.call();
  }
  const AttentionArgs& args = call.forward;

  std::optional<KernelChoice> choice;
  const std::string kernel = PatternOf(options.kernel, options.backend);
  if (!kernel.empty()) choice = KernelChoice{{kernel}, {}};
  const DeviceCaps& caps = cases::DeviceOfKernels(kernel);
  const Selection selection = choice ? Select(problem, caps, *choice) : Select(problem, caps);
  std::unique_ptr<Executor> executor;
  if (options.threads > 0) executor.reset(MakeExecutor(ExecutorKind::kOpenMp, options.threads));
  const Plan plan(problem, selection, executor ? executor.get() : nullptr);

  fmt::print("problem   {}\n", Print(problem));
  fmt::print("kernel    {}\n", selection.kernel);
  const Timing timing = LaunchTimed(plan, call);
  PrintOutputs(problem, call);
  const bool good = options.expect.empty() ? CompareWithReference(problem, call)
                                           : CompareWithFile(problem, args, options.expect);
  const int threads = plan.executor().threads();
  fmt::print("time      {:.3f} ms ({}, {})\n", timing.seconds * 1e3,
             timing.launches > 1 ? fmt::format("best of {} launches", timing.launches) : "one launch",
             caps.gpu ? caps.name : fmt::format("{} thread{}", threads, threads == 1 ? "" : "s"));
  if (!options.out.empty()) WriteNpy("--out", options.out, args.out);
  if (!options.lse_out.empty()) WriteNpy("--lse-out", options.lse_out, *args.lse);
  if (!good && !options.files.any()) {
    fmt::print("REPRO: regard check \"{}\" --kernel {}\n", Print(problem), selection.kernel);
  }
  return good ? 0 : kMissed;
}

}  // namespace

void RegisterRun(CLI::App& app, int& exit_code) {
  auto* command = app.add_subcommand("run", "Run attention on generated inputs or on .npy files, and check the result");
  auto options = std::make_shared<Options>();
  TensorFiles& files = options->files;
  command->add_option("case", options->words, "The case, as one quoted line or as words")->type_name("CASE");
  const auto file = [&](const char* flag, std::string& path, const char* help) {
    command->add_option(flag, path, help)->type_name("FILE")->group("Tensors (.npy: f32, f16, bf16, i32, bool)");
  };
  file("--q", files.q, "(B, Sq, Hq, D), or (Tq, Hq, D) with --cu-seqlens-q");
  file("--k", files.k, "(B, Skv, Hkv, D), (Tkv, Hkv, D), or pages with --block-table");
  file("--v", files.v, "As k, with Dv");
  file("--lens", files.lens, "(B): keys of each sequence; in self-attention its queries too");
  file("--qlens", files.qlens, "(B): queries of each sequence");
  file("--cu-seqlens-q", files.cu_q, "(B + 1): first row of each sequence in packed q");
  file("--cu-seqlens-kv", files.cu_kv, "(B + 1): the same for packed k and v");
  file("--block-table", files.block_table, "(B, pages a sequence): paged keys");
  file("--bias", files.bias, "Added to the scores: (B|1, Hq|1, Sq|1, Skv|1)");
  file("--mask", files.mask, "True: attend; the same shapes");
  file("--sink", files.sink, "(Hq)");
  file("--alibi-slopes", files.alibi_slopes, "(Hq) or (B, Hq)");
  file("--expect", options->expect, "Compare out with this file instead of the reference");
  file("--out", options->out, "Write out");
  file("--lse-out", options->lse_out, "Write the LSE");
  command->add_option("--options", files.options, "Options for tensors from files, such as \"causal window=3,0\"")
      ->type_name("WORDS");
  command->add_option("--kernel", options->kernel, "Only this kernel, or kernels of this prefix")->type_name("PATTERN");
  AddBackend(*command, options->backend);
  command->add_option("--threads", options->threads, "Threads (default: REGARD_THREADS, or all cores)")
      ->check(CLI::Range(1, 4096));
  command->callback([options, &exit_code] { exit_code = Run(*options); });
}

}  // namespace regard::cli
