// `regard cuda warm CASE...`: compiles what the cases need into the module cache, so that their first plan finds it
// there.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/case_words.h"
#include "cli/commands.h"
#include "cli/cuda_compile.h"
#include "cli/device_options.h"
#include "cli/text_table.h"
#include "regard/plan.h"
#include "regard/status.h"
#include "src/core/env.h"
#include "src/cuda/driver/module_cache.h"
#include "src/cuda/instances.h"
#include "src/cuda/known_gpus.h"

namespace regard::cli {
namespace {

struct Options {
  std::vector<std::string> words, archs;
  bool json = false;
};

struct Job {
  cuda::KernelInstance instance;
  cuda::Arch arch;
  cuda::CubinResult result;
  std::exception_ptr error;
};

// A GPU of an architecture, on which nothing can run.
DeviceCaps Pretended(int sm) {
  DeviceCaps caps;
  caps.type = DeviceType::kCuda;
  caps.name = "sm_" + std::to_string(sm);
  caps.isas.clear();
  GpuCaps& gpu = caps.gpu.emplace();
  gpu.sm = sm;
  gpu.shared_per_block_bytes = cuda::SharedBytesPerBlock(sm);
  gpu.nvrtc_major = cuda::Nvrtc().major;
  return caps;
}

// The architectures asked for, else those of this machine's GPUs, each once; as devices that only get planned for.
std::vector<DeviceCaps> Devices(const std::vector<cuda::Arch>& archs) {
  std::vector<DeviceCaps> devices;
  for (const cuda::Arch& arch : archs) devices.push_back(Pretended(arch.sm));
  if (!archs.empty()) return devices;
  const int count = DeviceCaps::GpuCount();
  for (int i = 0; i < std::max(count, 1); ++i) {
    DeviceCaps caps = DeviceCaps::Gpu(i);  // throws where there is none, with what to install
    caps.gpu->index.reset();
    const auto same = [&](const DeviceCaps& other) { return other.gpu->sm == caps.gpu->sm; };
    if (std::none_of(devices.begin(), devices.end(), same)) devices.push_back(std::move(caps));
  }
  return devices;
}

// The kernels that a launch of a case runs.
std::vector<cuda::KernelInstance> InstancesOf(const Problem& p, const DeviceCaps& caps) {
  const std::string kernel = Select(p, caps).kernel;
  std::vector<cuda::KernelInstance> needed;
  if (kernel.starts_with("cuda.")) needed = cuda::InstancesFor(p, caps);
  if (needed.empty()) {
    throw Error("case", Print(p), fmt::format("a case that a CUDA kernel takes; {} needs no compiling", kernel));
  }
  return needed;
}

std::vector<Job> JobsOf(const Options& options) {
  std::vector<Job> jobs;
  const std::vector<std::string> texts = JoinCases(options.words);
  for (const DeviceCaps& caps : Devices(ParseArchs(options.archs))) {
    for (const std::string& text : texts) {
      const Problem p = ParseProblem(text);
      Validate(p);
      for (cuda::KernelInstance& instance : InstancesOf(p, caps)) {
        const cuda::Arch arch = cuda::ArchFor(cuda::Nvrtc(), caps.gpu->sm, instance.arch_specific);
        const auto same = [&](const Job& job) { return job.arch == arch && job.instance.name == instance.name; };
        if (std::none_of(jobs.begin(), jobs.end(), same)) jobs.push_back({std::move(instance), arch, {}, nullptr});
      }
    }
  }
  return jobs;
}

// Each thread takes the next kernel until none is left.
void Run(std::vector<Job>* jobs) {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i; (i = next++) < jobs->size() && !Interrupted();) {
      Job& job = (*jobs)[i];
      try {
        job.result = cuda::ModuleCache::OfProcess().Get(job.instance, job.arch);
      } catch (...) {
        job.error = std::current_exception();
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < std::min<int>(AvailableCpus(), static_cast<int>(jobs->size())); ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  for (const Job& job : *jobs) {
    if (job.error) std::rethrow_exception(job.error);
  }
}

void PrintJobs(const std::vector<Job>& jobs, double seconds, bool json) {
  const std::string& folder = cuda::DiskCache::OfProcess().folder();
  nlohmann::ordered_json kernels = nlohmann::ordered_json::array();
  TextTable table({{"kernel"}, {"for"}, {"from"}, {"seconds", Align::kRight}, {"bytes", Align::kRight}});
  std::map<std::string, int> counts;
  for (const Job& job : jobs) {
    if (!job.result.cubin) continue;
    const std::string origin = cuda::Name(job.result.origin);
    ++counts[origin];
    kernels.push_back({{"kernel", job.instance.name},
                       {"arch", job.arch.Name()},
                       {"origin", origin},
                       {"seconds", job.result.seconds},
                       {"bytes", job.result.cubin->size()}});
    table.Row({job.instance.name, job.arch.Name(), origin, fmt::format("{:.4f}", job.result.seconds),
               fmt::format("{}", job.result.cubin->size())});
  }
  if (json) {
    const nlohmann::ordered_json all = {{"folder", folder},
                                        {"nvrtc", cuda::Nvrtc().VersionText()},
                                        {"seconds", seconds},
                                        {"kernels", kernels}};
    fmt::print("{}\n", all.dump(2));
    return;
  }
  fmt::print("{}\n{} compiled, {} found in {}; {:.3f} s\n", table.Text(), counts["compiled"], counts["disk"],
             folder.empty() ? "no cache" : folder, seconds);
}

void Warm(const Options& options) {
  if (const cuda::Status& status = cuda::Nvrtc().status; !status.ok) throw Error("cuda", status.reason, status.remedy);
  std::vector<Job> jobs = JobsOf(options);
  for (const Job& job : jobs) {
    const cuda::Status status = cuda::CanCompile(cuda::Nvrtc(), job.arch);
    if (!status.ok) throw Error("--arch", job.arch.Name() + ": " + status.reason, status.remedy);
  }
  const auto begin = std::chrono::steady_clock::now();
  Run(&jobs);
  PrintJobs(jobs, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), options.json);
}

}  // namespace

void RegisterCudaWarm(CLI::App& cuda) {
  auto* command = cuda.add_subcommand("warm", "Compile what cases need into the cache, before anything runs");
  auto options = std::make_shared<Options>();
  command->add_option("case", options->words, "Cases, as quoted lines or as words")->required()->type_name("CASE");
  command
      ->add_option("--arch", options->archs, "Architectures (sm_80, sm_90; several with commas) instead of this machine's")
      ->allow_extra_args(false)
      ->type_name("SM");
  command->add_flag("--json", options->json, "As JSON");
  command->footer("The cache is `regard cuda cache`; plans of the same cases then start without compiling.");
  command->callback([options] { Warm(*options); });
}

}  // namespace regard::cli
