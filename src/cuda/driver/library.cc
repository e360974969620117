#include "src/cuda/driver/library.h"

#include <dlfcn.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>

namespace regard::cuda {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kNvrtcName = "libnvrtc.so.";

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::vector<std::string> SplitPath(const std::string& text) {
  std::vector<std::string> entries;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(':', begin), text.size());
    if (end > begin) entries.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return entries;
}

// Entries of a folder whose names begin so, in descending order (python3.12 before python3.11); none where it cannot be
// read.
std::vector<fs::path> EntriesThatBegin(const fs::path& folder, std::string_view prefix) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (at->path().filename().string().starts_with(prefix)) found.push_back(at->path());
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

class Folders {
 public:
  void Add(const fs::path& folder) {
    std::error_code error;
    if (!fs::is_directory(folder, error)) return;
    const std::string name = folder.lexically_normal().string();
    if (std::find(names_.begin(), names_.end(), name) == names_.end()) names_.push_back(name);
  }
  void AddToolkit(const fs::path& home) {
    Add(home / "lib64");
    Add(home / "targets/x86_64-linux/lib");
    Add(home / "targets/sbsa-linux/lib");
  }
  // nvidia/cu13/lib since CUDA 13, nvidia/cuda_nvrtc/lib before.
  void AddSite(const fs::path& site) {
    for (const fs::path& package : EntriesThatBegin(site / "nvidia", "cu")) {
      const std::string name = package.filename().string();
      if (name == "cuda_nvrtc" || (name.size() > 2 && name[2] >= '0' && name[2] <= '9')) Add(package / "lib");
    }
  }
  void AddPythonPrefix(const fs::path& prefix) {
    for (const fs::path& python : EntriesThatBegin(prefix / "lib", "python3")) {
      AddSite(python / "site-packages");
      AddSite(python / "dist-packages");
    }
  }
  std::vector<std::string> Take() { return std::move(names_); }

 private:
  std::vector<std::string> names_;
};

}  // namespace

SearchEnvironment SearchEnvironment::OfProcess() {
  SearchEnvironment e;
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"}) {
    if (std::string home = Variable(name); !home.empty()) e.cuda_homes.push_back(std::move(home));
  }
  e.virtual_env = Variable("VIRTUAL_ENV");
  e.conda_prefix = Variable("CONDA_PREFIX");
  e.home = Variable("HOME");
  e.python_path = Variable("PYTHONPATH");
  e.path = Variable("PATH");
  std::error_code error;
  const fs::path own = fs::canonical(FileOf(reinterpret_cast<void*>(&SearchEnvironment::OfProcess), ""), error);
  if (!error) e.own_library = own.string();
  return e;
}

std::vector<std::string> NvrtcFolders(const SearchEnvironment& e) {
  Folders folders;
  for (const std::string& home : e.cuda_homes) folders.AddToolkit(home);
  if (!e.own_library.empty()) {  // site-packages/regard/_core.so
    folders.AddSite(fs::path(e.own_library).parent_path().parent_path());
    folders.AddPythonPrefix(fs::path(e.own_library).parent_path().parent_path());  // PREFIX/bin/regard, PREFIX/lib/*.so
  }
  if (!e.virtual_env.empty()) folders.AddPythonPrefix(e.virtual_env);
  for (const std::string& entry : SplitPath(e.python_path)) folders.AddSite(entry);
  if (!e.conda_prefix.empty()) {
    folders.Add(fs::path(e.conda_prefix) / "lib");
    folders.AddPythonPrefix(e.conda_prefix);
  }
  if (!e.home.empty()) folders.AddPythonPrefix(fs::path(e.home) / ".local");
  for (const std::string& entry : SplitPath(e.path)) {
    std::error_code error;
    if (!fs::exists(fs::path(entry) / "python3", error)) continue;
    folders.AddPythonPrefix(fs::path(entry).parent_path());
    break;  // the python3 that a shell would start
  }
  folders.AddToolkit("/usr/local/cuda");
  return folders.Take();
}

std::vector<NvrtcFile> NvrtcFilesIn(const std::string& folder) {
  std::vector<NvrtcFile> files;
  for (const fs::path& path : EntriesThatBegin(folder, kNvrtcName)) {
    const std::string name = path.filename().string();
    const std::string_view number = std::string_view(name).substr(kNvrtcName.size());
    NvrtcFile file{path.string(), 0};
    const auto [stop, error] = std::from_chars(number.data(), number.data() + number.size(), file.major);
    // "13", and "11.2": the library's name carried the minor version before CUDA 12.
    const std::string_view rest(stop, static_cast<std::size_t>(number.data() + number.size() - stop));
    if (error == std::errc() && (rest.empty() || (file.major < 12 && rest.size() == 2))) files.push_back(file);
  }
  std::stable_sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.major > b.major; });
  return files;
}

void* OpenLibrary(const std::string& file, std::string* said) {
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* words = dlerror();
    *said = words == nullptr ? "it cannot be loaded" : words;
  }
  return library;
}

void* Symbol(void* library, const char* name) { return dlsym(library, name); }

std::string FileOf(void* symbol, const std::string& otherwise) {
  Dl_info info{};
  if (symbol == nullptr || dladdr(symbol, &info) == 0 || info.dli_fname == nullptr) return otherwise;
  return info.dli_fname;
}

}  // namespace regard::cuda
