#include "src/cuda/driver/nvrtc.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "regard/status.h"
#include "src/core/env.h"
#include "src/cuda/driver/driver_api.h"
#include "src/cuda/driver/library.h"

namespace regard::cuda {
namespace {

constexpr int kOldestMajor = 12;
constexpr int kNewestSoname = 16;  // sonames asked for on the loader's path: libnvrtc.so.16 down to .12
constexpr const char* kInstall = "pip install nvidia-cuda-nvrtc, or set REGARD_NVRTC to a libnvrtc.so";
constexpr std::size_t kErrorLines = 3;

template <class Function>
bool Resolve(void* library, const char* name, Function** function) {
  *function = reinterpret_cast<Function*>(Symbol(library, name));
  return *function != nullptr;
}

// NVRTC opens libnvrtc-builtins by its bare name when it compiles, which finds the one beside it only where the loader
// honours its search path (under a sanitizer it does not). What is open under that name already is taken first.
void OpenBuiltins(const NvrtcApi& api) {
  const std::size_t slash = api.path.rfind('/');
  if (slash == std::string::npos) return;
  std::string said;
  OpenLibrary(api.path.substr(0, slash + 1) + "libnvrtc-builtins.so." + api.VersionText(), &said);
}

// Fills the table from an opened library; false with *said where it is no usable NVRTC.
bool Fill(void* library, const std::string& file, NvrtcApi* api, std::string* said) {
#define REGARD_RESOLVE(field, symbol, parameters) \
  if (!Resolve(library, #symbol, &api->field)) return *said = std::string("it has no ") + #symbol, false;
  REGARD_NVRTC_ENTRY_POINTS(REGARD_RESOLVE)
#undef REGARD_RESOLVE
  int count = 0;
  if (api->version(&api->major, &api->minor) != 0 || api->get_num_supported_archs(&count) != 0 || count <= 0) {
    return *said = "it does not say its version and architectures", false;
  }
  api->archs.resize(static_cast<std::size_t>(count));
  if (api->get_supported_archs(api->archs.data()) != 0) return *said = "it does not name its architectures", false;
  std::sort(api->archs.begin(), api->archs.end());
  api->path = FileOf(reinterpret_cast<void*>(api->version), file);
  OpenBuiltins(*api);
  if (api->major < kOldestMajor) return *said = "it is NVRTC " + api->VersionText() + ", regard needs 12.0", false;
  return true;
}

std::string Join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

// Which NVRTC the driver can load code of, and what was seen that it cannot.
class Search {
 public:
  explicit Search(int driver_version) : newest_(driver_version == 0 ? 1000 : driver_version / 1000) {}

  bool TakesMajor(int major) {
    if (major < kOldestMajor) too_old_ = std::max(too_old_, major);
    if (major > newest_) too_new_ = std::max(too_new_, major);
    return major >= kOldestMajor && major <= newest_;
  }
  bool Try(const std::string& file, NvrtcApi* api) {
    std::string said;
    NvrtcApi opened;
    void* library = OpenLibrary(file, &said);
    if (library != nullptr && Fill(library, file, &opened, &said) && TakesMajor(opened.major)) {
      opened.tried = std::move(api->tried);
      *api = std::move(opened);
      return true;
    }
    if (library != nullptr || file.find('/') != std::string::npos) last_said_ = file + ": " + said;
    return false;
  }
  Status NotFound(int driver_version, const std::vector<std::string>& tried) const {
    if (too_new_ != 0) {
      return Status::Missing("NVRTC " + std::to_string(too_new_) + " makes code for drivers of CUDA " +
                                 std::to_string(too_new_) + "; this driver is of CUDA " + VersionText(driver_version),
                             "pip install nvidia-cuda-nvrtc-cu" + std::to_string(newest_) +
                                 ", or install a newer NVIDIA driver");
    }
    if (too_old_ != 0) {
      return Status::Missing("NVRTC " + std::to_string(too_old_) + " is too old, regard needs 12.0", kInstall);
    }
    if (!last_said_.empty()) return Status::Missing("NVRTC cannot be used: " + last_said_, kInstall);
    return Status::Missing("no NVRTC found (libnvrtc.so.12 or later; looked at " + Join(tried) + ")", kInstall);
  }

 private:
  int newest_;
  int too_new_ = 0, too_old_ = 0;
  std::string last_said_;
};

Status Find(const std::string& file, int driver_version, const std::vector<std::string>& folders, bool loader_path,
            NvrtcApi* api) {
  Search search(driver_version);
  if (!file.empty()) {
    api->tried.push_back(file);
    std::string said;
    NvrtcApi opened;
    void* library = OpenLibrary(file, &said);
    if (library == nullptr || !Fill(library, file, &opened, &said)) {
      return Status::Missing("REGARD_NVRTC=" + file + " cannot be used: " + said,
                             "name a libnvrtc.so of CUDA 12 or later (pip install nvidia-cuda-nvrtc), or unset it");
    }
    opened.tried = std::move(api->tried);
    *api = std::move(opened);
    return search.TakesMajor(api->major) ? Status{} : search.NotFound(driver_version, {});
  }
  if (loader_path) {
    api->tried.push_back("the loader's path");
    for (int major = kNewestSoname; major >= kOldestMajor; --major) {
      if (driver_version != 0 && major > driver_version / 1000) continue;
      if (search.Try("libnvrtc.so." + std::to_string(major), api)) return {};
    }
  }
  for (const std::string& folder : folders) {
    api->tried.push_back(folder);
    for (const NvrtcFile& found : NvrtcFilesIn(folder)) {
      if (search.TakesMajor(found.major) && search.Try(found.path, api)) return {};
    }
  }
  return search.NotFound(driver_version, api->tried);
}

NvrtcApi FindNvrtc(int driver_version) {
  const std::string& file = Env().nvrtc;
  if (!file.empty()) return LoadNvrtc(file, driver_version, {});
  return LoadNvrtc("", driver_version, NvrtcFolders(SearchEnvironment::OfProcess()));
}

// Lines of the log that say "error", without those that only count them.
std::string FirstErrors(const std::string& log) {
  std::string errors;
  std::size_t count = 0;
  for (std::size_t begin = 0; begin < log.size() && count < kErrorLines;) {
    const std::size_t end = std::min(log.find('\n', begin), log.size());
    const std::string line = log.substr(begin, end - begin);
    if (line.find("error") != std::string::npos && line.find("detected in the compilation") == std::string::npos) {
      errors += (count++ == 0 ? "" : "; ") + line;
    }
    begin = end + 1;
  }
  return errors.empty() ? log.substr(0, 400) : errors;
}

// Owns one program of NVRTC.
class Program {
 public:
  explicit Program(const NvrtcApi& api) : api_(api) {}
  ~Program() {
    if (program != nullptr) api_.destroy_program(&program);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  abi::nvrtcProgram program = nullptr;

  std::string Log() const {
    std::size_t bytes = 0;
    if (api_.get_log_size(program, &bytes) != abi::NVRTC_SUCCESS || bytes <= 1) return {};
    std::string log(bytes, '\0');
    if (api_.get_log(program, log.data()) != abi::NVRTC_SUCCESS) return {};
    log.resize(log.find('\0'));
    return log;
  }

 private:
  const NvrtcApi& api_;
};

std::string Numbers(const std::vector<int>& archs) {
  std::string text;
  for (const int sm : archs) text += (text.empty() ? "sm_" : ", sm_") + std::to_string(sm);
  return text;
}

}  // namespace

NvrtcApi LoadNvrtc(const std::string& file, int driver_version, const std::vector<std::string>& folders,
                   bool loader_path) {
  NvrtcApi api;
  api.status = Find(file, driver_version, folders, loader_path, &api);
  return api;
}

const NvrtcApi& Nvrtc() {
  // Never destroyed: threads may still compile while the process ends.
  static const NvrtcApi& api = *new NvrtcApi(FindNvrtc(Driver().status.ok ? Driver().version : 0));
  return api;
}

const NvrtcApi& OfflineNvrtc() {
  static const NvrtcApi& api = *new NvrtcApi(FindNvrtc(0));
  return api;
}

Status CanCompile(const NvrtcApi& nvrtc, const Arch& arch) {
  if (!nvrtc.status.ok) return nvrtc.status;
  if (std::binary_search(nvrtc.archs.begin(), nvrtc.archs.end(), arch.sm)) return {};
  const std::string version = "NVRTC " + nvrtc.VersionText();
  if (arch.sm < nvrtc.archs.front()) {
    const std::string first = "sm_" + std::to_string(nvrtc.archs.front());
    return Status::Missing(version + " starts at " + first + ", this is " + arch.Name(),
                           arch.sm >= 50 && nvrtc.major > 12 ? "an NVRTC 12: pip install nvidia-cuda-nvrtc-cu12"
                                                             : "none: regard's kernels need sm_70 and an NVRTC 12");
  }
  return Status::Missing(version + " has no " + arch.Name() + " (it has " + Numbers(nvrtc.archs) + ")",
                         arch.sm > nvrtc.archs.back() ? "a newer NVRTC: pip install --upgrade nvidia-cuda-nvrtc"
                                                      : "name one of those");
}

Arch ArchFor(const NvrtcApi& nvrtc, int sm, bool specific) {
  if (std::binary_search(nvrtc.archs.begin(), nvrtc.archs.end(), sm)) return {sm, specific};
  for (auto at = nvrtc.archs.rbegin(); at != nvrtc.archs.rend(); ++at) {
    if (*at < sm && *at / 10 == sm / 10) return {*at, false};
  }
  return {sm, specific};
}

std::vector<std::string> CompileOptions(const Arch& arch) {
  return {"-std=c++20", "--fmad=false", "-default-device", "--ptxas-options=-v", "-arch=" + arch.Name()};
}

Compiled Compile(const KernelInstance& instance, const Arch& arch, const NvrtcApi& nvrtc,
                 std::span<const EmbeddedFile> headers) {
  if (const Status status = CanCompile(nvrtc, arch); !status.ok) throw Error("cuda", status.reason, status.remedy);
  const auto begin = std::chrono::steady_clock::now();
  std::vector<const char*> names, texts, options;
  for (const EmbeddedFile& header : headers) {
    names.push_back(header.name);
    texts.push_back(header.text);
  }
  const std::vector<std::string> words = CompileOptions(arch);
  for (const std::string& word : words) options.push_back(word.c_str());

  Program p(nvrtc);
  const std::string file = instance.name + ".cu";
  if (nvrtc.create_program(&p.program, instance.text.c_str(), file.c_str(), static_cast<int>(names.size()),
                           texts.data(), names.data()) != abi::NVRTC_SUCCESS) {
    throw Error("cuda.compile", instance.name, "NVRTC to take the program (nvrtcCreateProgram fails)");
  }
  const abi::nvrtcResult result = nvrtc.compile_program(p.program, static_cast<int>(options.size()), options.data());
  Compiled compiled;
  compiled.log = p.Log();
  std::size_t bytes = 0;
  if (result != abi::NVRTC_SUCCESS || nvrtc.get_cubin_size(p.program, &bytes) != abi::NVRTC_SUCCESS || bytes == 0) {
    throw Error("cuda.compile", instance.name + " for " + arch.Name() + ": " + FirstErrors(compiled.log),
                "source that NVRTC " + nvrtc.VersionText() + " compiles");
  }
  compiled.cubin.resize(bytes);
  if (nvrtc.get_cubin(p.program, compiled.cubin.data()) != abi::NVRTC_SUCCESS) {
    throw Error("cuda.compile", instance.name, "a cubin (nvrtcGetCUBIN fails)");
  }
  compiled.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return compiled;
}

}  // namespace regard::cuda
