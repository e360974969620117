#include "cli/kernel_compile.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/known_spills.h"
#include "regard/status.h"
#include "src/cuda/driver/cubin.h"
#include "src/cuda/driver/nvrtc.h"
#include "src/cuda/driver/occupancy.h"

namespace regard::cli {
namespace {

// Memory that children share with their parent.
template <class T>
class SharedArray {
 public:
  explicit SharedArray(std::size_t count) : bytes_(std::max<std::size_t>(count, 1) * sizeof(T)) {
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw Error("memory", std::strerror(errno), "memory to share with compiling processes");
    data_ = static_cast<T*>(memory);
  }
  ~SharedArray() { munmap(data_, bytes_); }
  SharedArray(const SharedArray&) = delete;
  SharedArray& operator=(const SharedArray&) = delete;
  T& operator[](std::size_t i) { return data_[i]; }

 private:
  std::size_t bytes_;
  T* data_ = nullptr;
};

using SharedCounter = std::atomic<std::uint32_t>;
static_assert(SharedCounter::is_always_lock_free);

void WriteWhole(int pipe, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t wrote = write(pipe, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) _exit(1);  // the parent is gone
    done += static_cast<std::size_t>(wrote);
  }
}

// A compiling process: takes the next job until none is left, and sends each report as one line, "JOB JSON".
[[noreturn]] void RunChild(const std::vector<CompileJob>& jobs, const std::string& keep, SharedCounter& next,
                           int pipe) {
  for (;;) {
    const std::size_t index = next.fetch_add(1);
    if (index >= jobs.size()) _exit(0);
    WriteWhole(pipe, fmt::format("{}\n", index));
    const nlohmann::json report = CompileOne(jobs[index], keep);
    const std::string text = report.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    WriteWhole(pipe, fmt::format("{} {}\n", index, text));
  }
}

struct Child {
  pid_t pid = -1;
  int pipe = -1;
  std::string received;
  std::optional<std::size_t> job;  // that it is at
};

Child Start(const std::vector<CompileJob>& jobs, const std::string& keep, SharedCounter& next) {
  int ends[2];
  if (pipe(ends) != 0) throw Error("processes", std::strerror(errno), "a pipe to a compiling process");
  const pid_t pid = fork();
  if (pid < 0) {
    close(ends[0]);
    close(ends[1]);
    throw Error("processes", std::strerror(errno), "a process to compile in");
  }
  if (pid == 0) {
    close(ends[0]);
    RunChild(jobs, keep, next, ends[1]);
  }
  close(ends[1]);
  return {pid, ends[0], {}, std::nullopt};
}

// What ended a process that was at a job.
std::string HowItEnded(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) return fmt::format("the compiler crashed ({})", strsignal(WTERMSIG(status)));
  return fmt::format("the compiling process ended with exit code {}", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

void Keep(const std::string& folder, const std::string& name, const std::string& what, const std::string& bytes) {
  const std::string path = folder + "/" + name + what;
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  if (!file.flush()) throw Error("--keep", path, "a folder that can be written");
}

void AddResources(const CompileJob& job, const cuda::Compiled& compiled, KernelReport* report) {
  const cuda::CubinInfo info = cuda::ReadCubin(compiled.cubin);
  report->registers = info.registers;
  report->static_shared_bytes = info.shared_bytes;
  report->stack_bytes = info.stack_bytes;
  report->code_bytes = info.code_bytes;
  if (report->threads == 0) report->threads = info.max_threads;
  const auto spills = cuda::SpillsInLog(compiled.log);
  if (!spills) throw Error("cuda.compile", report->name, "a log that says how much is spilled");
  report->spill_store_bytes = spills->store_bytes;
  report->spill_load_bytes = spills->load_bytes;
  report->known_spill = SpillReason(KnownSpills(), report->name, job.arch.sm, spills->bytes());
  const auto limits = cuda::LimitsOf(job.arch.sm);
  if (!limits || report->threads == 0) return;
  const cuda::Occupancy occupancy = cuda::OccupancyOf(
      *limits, info.registers, report->static_shared_bytes + report->dynamic_shared_bytes, report->threads);
  report->occupancy_blocks = occupancy.blocks;
  report->occupancy_warps = occupancy.warps;
  report->occupancy = occupancy.fraction;
  report->limited_by = occupancy.limited_by;
}

}  // namespace

KernelReport CompileOne(const CompileJob& job, const std::string& keep) {
  KernelReport report;
  report.name = job.instance.name;
  report.arch = job.arch.Name();
  report.threads = job.instance.threads;
  report.dynamic_shared_bytes = job.instance.shared_bytes;
  try {
    const std::string file = report.name + "." + report.arch;
    if (!keep.empty()) Keep(keep, file, ".cu", job.instance.text);
    const cuda::Compiled compiled = cuda::Compile(job.instance, job.arch, cuda::OfflineNvrtc());
    report.seconds = compiled.seconds;
    report.cubin_bytes = static_cast<std::int64_t>(compiled.cubin.size());
    if (!keep.empty()) Keep(keep, file, ".cubin", compiled.cubin);
    if (!keep.empty()) Keep(keep, file, ".log", compiled.log);
    AddResources(job, compiled, &report);
    report.instructions = CountOfCubin(compiled.cubin);
  } catch (const Error& e) {
    const bool of_compiler = e.field() == "cuda.compile" && e.value().starts_with(report.name);
    report.error = of_compiler ? e.value() : fmt::format("{} for {}: {}", report.name, report.arch, e.what());
  } catch (const std::exception& e) {
    report.error = fmt::format("{} for {}: {}", report.name, report.arch, e.what());
  }
  return report;
}

std::vector<KernelReport> CompileKernels(const std::vector<CompileJob>& jobs, int processes, const std::string& keep,
                                         const std::function<void(const KernelReport&)>& progress) {
  if (!keep.empty()) {
    std::error_code error;
    std::filesystem::create_directories(keep, error);
    if (error) throw Error("--keep", keep, "a folder that can be made: " + error.message());
  }
  SharedArray<SharedCounter> next(1);
  std::vector<std::optional<KernelReport>> reports(jobs.size());
  const auto finish = [&](std::size_t job, KernelReport report) {
    progress(report);
    reports[job] = std::move(report);
  };
  std::vector<Child> children;
  const std::size_t first = std::min(jobs.size(), static_cast<std::size_t>(std::max(processes, 1)));
  while (children.size() < first) children.push_back(Start(jobs, keep, next[0]));
  while (!children.empty()) {
    std::vector<pollfd> waits;
    for (const Child& child : children) waits.push_back({child.pipe, POLLIN, 0});
    const int ready = poll(waits.data(), waits.size(), 200);
    if (Interrupted()) {
      for (const Child& child : children) kill(child.pid, SIGKILL);
    }
    if (ready <= 0) continue;
    for (std::size_t i = waits.size(); i-- > 0;) {
      if (waits[i].revents == 0) continue;
      Child& child = children[i];
      char buffer[4096];
      const ssize_t got = read(child.pipe, buffer, sizeof(buffer));
      if (got < 0 && errno == EINTR) continue;
      if (got > 0) {
        child.received.append(buffer, static_cast<std::size_t>(got));
        for (std::size_t end; (end = child.received.find('\n')) != std::string::npos;) {
          const std::string line = child.received.substr(0, end);
          child.received.erase(0, end + 1);
          child.job = std::stoul(line);
          const std::size_t space = line.find(' ');
          if (space == std::string::npos) continue;
          finish(*child.job, nlohmann::json::parse(line.substr(space)).get<KernelReport>());
          child.job.reset();
        }
        continue;
      }
      close(child.pipe);
      const std::string ended = HowItEnded(child.pid);
      const std::optional<std::size_t> job = child.job;
      children.erase(children.begin() + static_cast<std::ptrdiff_t>(i));
      if (!job || Interrupted()) continue;
      KernelReport report;
      report.name = jobs[*job].instance.name;
      report.arch = jobs[*job].arch.Name();
      report.error = fmt::format("{} for {}: {}", report.name, report.arch, ended);
      finish(*job, std::move(report));
      if (next[0].load() < jobs.size()) children.push_back(Start(jobs, keep, next[0]));
    }
  }
  std::vector<KernelReport> done;
  for (std::optional<KernelReport>& report : reports) {
    if (report) done.push_back(*std::move(report));
  }
  return done;
}

}  // namespace regard::cli
