// `regard cuda compile`: CUDA kernels compiled for any architecture, with no GPU, and what each of them takes.
#include "cli/cuda_compile.h"

#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <memory>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/kernel_compile.h"
#include "cli/text_table.h"
#include "regard/status.h"
#include "src/core/env.h"
#include "src/core/suggest.h"
#include "src/cuda/driver/nvrtc.h"
#include "src/cuda/instances.h"

namespace regard::cli {
namespace {

struct Options {
  std::vector<std::string> archs, patterns, sources;
  bool all = false, list = false, json = false;
  int jobs = 0;
  std::string keep;
};

// The instance that a file holds: its first line names it. Threads of a block are in the code.
cuda::KernelInstance InstanceInFile(const std::string& path) {
  std::ostringstream text;
  std::ifstream file(path, std::ios::binary);
  if (!file || !(text << file.rdbuf())) throw Error("--source", path, "a file that can be read and is not empty");
  cuda::KernelInstance instance;
  instance.text = text.str();
  const std::string first = instance.text.substr(0, instance.text.find('\n'));
  constexpr std::string_view kMark = "// instance ";
  if (!first.starts_with(kMark) || first.find_first_of(" \t/", kMark.size()) != std::string::npos ||
      first.size() == kMark.size()) {
    throw Error("--source", path + " begins with \"" + first + "\"", "a first line \"// instance NAME\"");
  }
  instance.name = first.substr(kMark.size());
  return instance;
}

bool Matches(const std::string& pattern, const std::string& name) {
  return name.starts_with(pattern) || fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

// The instances for an architecture that the command line names; `found` counts, for each pattern, what it matched.
std::vector<cuda::KernelInstance> Chosen(const Options& options, const cuda::Arch& arch, std::vector<int>* found,
                                         std::vector<std::string>* known) {
  std::vector<cuda::KernelInstance> chosen;
  for (const std::string& path : options.sources) chosen.push_back(InstanceInFile(path));
  if (!options.all && options.patterns.empty()) return chosen;
  for (cuda::KernelInstance& instance : cuda::AllInstances(arch.sm)) {
    bool wanted = options.all;
    known->push_back(instance.name);
    for (std::size_t i = 0; i < options.patterns.size(); ++i) {
      if (!Matches(options.patterns[i], instance.name)) continue;
      wanted = true;
      ++(*found)[i];
    }
    if (wanted) chosen.push_back(std::move(instance));
  }
  return chosen;
}

std::vector<CompileJob> Jobs(const Options& options) {
  if (!options.all && options.patterns.empty() && options.sources.empty()) {
    throw Error("kernels", "none", "--all, names or patterns of kernels, or --source FILE");
  }
  std::vector<int> found(options.patterns.size(), 0);
  std::vector<std::string> known;
  std::vector<CompileJob> jobs;
  for (const cuda::Arch& arch : ParseArchs(options.archs)) {
    for (cuda::KernelInstance& instance : Chosen(options, arch, &found, &known)) {
      const cuda::Arch exact(arch.sm, arch.specific || instance.arch_specific);
      jobs.push_back({std::move(instance), exact});
    }
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (found[i] != 0) continue;
    const std::vector<std::string_view> names(known.begin(), known.end());
    const std::string nearest = Nearest(options.patterns[i], names);
    throw Error("kernel", options.patterns[i],
                "the beginning of a kernel's name, or a pattern with * (see --list)" +
                    (nearest.empty() ? "" : "; the nearest is " + nearest));
  }
  return jobs;
}

// Refuses here, in one line, what every compile would refuse.
void CheckCompiler(const std::vector<CompileJob>& jobs) {
  for (const CompileJob& job : jobs) {
    const cuda::Status status = cuda::CanCompile(cuda::OfflineNvrtc(), job.arch);
    if (!status.ok) throw Error("--arch", job.arch.Name() + ": " + status.reason, status.remedy);
  }
}

std::string SharedText(const KernelReport& r) {
  return r.static_shared_bytes == 0 ? fmt::format("{}", r.dynamic_shared_bytes)
                                    : fmt::format("{}+{}", r.dynamic_shared_bytes, r.static_shared_bytes);
}

std::string OccupancyText(const KernelReport& r) {
  if (r.limited_by.empty()) return "unknown";
  return fmt::format("{} blocks, {} warps, {:.0f} % ({})", r.occupancy_blocks, r.occupancy_warps, 100 * r.occupancy,
                     r.limited_by);
}

void PrintTables(const std::vector<KernelReport>& reports) {
  std::vector<std::string> archs;
  for (const KernelReport& r : reports) {
    if (std::find(archs.begin(), archs.end(), r.arch) == archs.end()) archs.push_back(r.arch);
  }
  for (const std::string& arch : archs) {
    TextTable table({{arch},
                     {"registers", Align::kRight},
                     {"shared", Align::kRight},
                     {"spills", Align::kRight},
                     {"stack", Align::kRight},
                     {"code", Align::kRight},
                     {"cubin", Align::kRight},
                     {"seconds", Align::kRight},
                     {"occupancy"}});
    for (const KernelReport& r : reports) {
      if (r.arch != arch || !r.error.empty()) continue;
      table.Row({r.name, fmt::format("{}", r.registers), SharedText(r), fmt::format("{}", r.SpillBytes()),
                 fmt::format("{}", r.stack_bytes), fmt::format("{}", r.code_bytes), fmt::format("{}", r.cubin_bytes),
                 fmt::format("{:.2f}", r.seconds), OccupancyText(r)});
    }
    fmt::print("{}\n", table.Text());
  }
}

// Machine instructions by group, of kernels that were disassembled.
void PrintInstructions(const std::vector<KernelReport>& reports) {
  constexpr const char* kGroups[] = {"tensor", "ldmatrix", "shared", "async", "global", "local", "exp2", "f32", "other"};
  if (Disassembler().empty()) return;
  std::vector<TextTable::Column> columns = {{"instructions"}};
  for (const char* group : kGroups) columns.push_back({group, Align::kRight});
  TextTable table(columns);
  for (const KernelReport& r : reports) {
    if (!r.error.empty()) continue;
    std::vector<std::string> cells = {r.arch + " " + r.name};
    for (const char* group : kGroups) {
      const auto count = r.instructions.find(group);
      cells.push_back(fmt::format("{}", count == r.instructions.end() ? 0 : count->second));
    }
    table.Row(std::move(cells));
  }
  fmt::print("{}\n", table.Text());
}

// One line for each kernel that is not good, and for each spill that is accepted.
void PrintTrouble(const std::vector<KernelReport>& reports) {
  for (const KernelReport& r : reports) {
    if (!r.error.empty()) {
      fmt::print("failed   {}\n", r.error);
    } else if (r.SpillBytes() != 0 && r.known_spill.empty()) {
      fmt::print("spills   {} for {}: {} bytes, and cli/known_spills.h lists no reason\n", r.name, r.arch,
                 r.SpillBytes());
    } else if (r.SpillBytes() != 0) {
      fmt::print("accepted {} for {}: {} bytes spilled: {}\n", r.name, r.arch, r.SpillBytes(), r.known_spill);
    }
  }
}

template <class Predicate>
std::ptrdiff_t Count(const std::vector<KernelReport>& reports, Predicate&& predicate) {
  return std::count_if(reports.begin(), reports.end(), predicate);
}

void PrintReports(const std::vector<KernelReport>& reports, double seconds, bool json) {
  const auto failed = Count(reports, [](const KernelReport& r) { return !r.error.empty(); });
  const auto spilled = Count(reports, [](const KernelReport& r) { return r.SpillBytes() != 0; });
  if (json) {
    const nlohmann::ordered_json all = {{"nvrtc", cuda::OfflineNvrtc().VersionText()}, {"seconds", seconds},
                                        {"failed", failed},                     {"spilled", spilled},
                                        {"kernels", nlohmann::json(reports)}};
    fmt::print("{}\n", all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    return;
  }
  PrintTables(reports);
  PrintInstructions(reports);
  PrintTrouble(reports);
  fmt::print("{} kernel{} by NVRTC {}: {} compiled, {} failed, {} with spills; {:.1f} s\n", reports.size(),
             reports.size() == 1 ? "" : "s", cuda::OfflineNvrtc().VersionText(),
             static_cast<std::ptrdiff_t>(reports.size()) - failed, failed, spilled, seconds);
}

void Compile(const Options& options, int* exit_code) {
  const std::vector<CompileJob> jobs = Jobs(options);
  if (options.list) {
    for (const CompileJob& job : jobs) fmt::print("{} {}\n", job.arch.Name(), job.instance.name);
    return;
  }
  CheckCompiler(jobs);
  const auto begin = std::chrono::steady_clock::now();
  std::size_t done = 0;
  const int processes = options.jobs > 0 ? options.jobs : AvailableCpus();
  const bool watched = isatty(STDERR_FILENO) != 0;
  const std::vector<KernelReport> reports = CompileKernels(jobs, processes, options.keep, [&](const KernelReport& r) {
    ++done;
    if (!watched) return;
    fmt::print(stderr, "[{}/{}] {} {} {}\n", done, jobs.size(), r.arch, r.name,
               r.error.empty() ? fmt::format("{:.2f} s", r.seconds) : "FAILED");
  });
  PrintReports(reports, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), options.json);
  const bool good = std::all_of(reports.begin(), reports.end(), [](const KernelReport& r) { return r.Good(); });
  if (!good || reports.size() != jobs.size()) *exit_code = 1;
}

}  // namespace

std::vector<cuda::Arch> ParseArchs(const std::vector<std::string>& words) {
  std::vector<cuda::Arch> archs;
  for (const std::string& word : words) {
    std::istringstream parts(word);
    for (std::string part; std::getline(parts, part, ',');) {
      const cuda::Arch arch = cuda::ParseArch("--arch", part);
      if (std::find(archs.begin(), archs.end(), arch) == archs.end()) archs.push_back(arch);
    }
  }
  return archs;
}

void RegisterCudaCompile(CLI::App& cuda, int& exit_code) {
  auto* command = cuda.add_subcommand(
      "compile", "Compile kernels for an architecture, with no GPU: registers, shared memory, spills, occupancy");
  auto options = std::make_shared<Options>();
  command->add_option("kernel", options->patterns, "Kernels: beginnings of names, or patterns with *")
      ->type_name("NAME");
  command->add_option("--arch", options->archs, "Architectures: sm_80, sm_90a; several with commas")
      ->required()
      ->allow_extra_args(false)
      ->type_name("SM");
  command->add_flag("--all", options->all, "Every kernel that regard's table asks for on that architecture");
  command
      ->add_option("--source", options->sources,
                   "A translation unit of your own, with a first line \"// instance NAME\"")
      ->allow_extra_args(false)
      ->type_name("FILE");
  command->add_flag("--list", options->list, "Only name the kernels");
  command->add_flag("--json", options->json, "As JSON");
  command->add_option("--keep", options->keep, "Leave sources, logs and cubins in this folder")->type_name("FOLDER");
  command->add_option("-j,--jobs", options->jobs, "Compile so many at once; all cores if not given")
      ->check(CLI::Range(1, 256));
  command->footer(
      "Exit code 1: a kernel was refused, or spills registers for no listed reason. Nothing enters the cache.");
  command->callback([options, &exit_code] { Compile(*options, &exit_code); });
}

}  // namespace regard::cli
