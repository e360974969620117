// The program of the driver's tests. Unless REGARD_LIBCUDA and REGARD_NVRTC are read from elsewhere, the process-wide
// driver and compiler are the fakes; what the caller's REGARD_NVRTC names is the real one.
#include "tests/cuda/support.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "src/cuda/driver/driver_api.h"
#include "src/cuda/driver/library.h"

namespace regard::cuda {
namespace {

namespace fs = std::filesystem;

std::string& CallersNvrtc() {
  static std::string file;
  return file;
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string name = (fs::temp_directory_path() / "regard-test-XXXXXX").string();
  path_ = mkdtemp(name.data()) == nullptr ? "" : name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  fs::permissions(path_, fs::perms::owner_all, error);
  for (const auto& entry : fs::recursive_directory_iterator(path_, error)) {
    if (entry.is_directory(error)) fs::permissions(entry.path(), fs::perms::owner_all, error);
  }
  fs::remove_all(path_, error);
}

std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void WriteFile(const std::string& path, const std::string& bytes) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

KernelInstance Toy(const std::string& name, int threads) {
  KernelInstance toy;
  toy.name = name;
  toy.threads = threads;
  toy.shared_bytes = static_cast<unsigned>(threads) * 4;
  const std::string n = std::to_string(threads);
  toy.text = "// instance " + name +
             "\n"
             "struct Parameters { float* x; int n; };\n"
             "extern \"C\" __global__ __launch_bounds__(" + n + ")\n"
             "void regard_kernel(const __grid_constant__ Parameters p) {\n"
             "  extern __shared__ float dynamic[];\n"
             "  __shared__ float fixed[64];\n"
             "  const int i = blockIdx.x * " + n + " + threadIdx.x;\n"
             "  dynamic[threadIdx.x] = i < p.n ? p.x[i] : 0.0f;\n"
             "  if (threadIdx.x < 64) fixed[threadIdx.x] = dynamic[threadIdx.x];\n"
             "  __syncthreads();\n"
             "  if (i < p.n) p.x[i] = dynamic[" + n + " - 1 - threadIdx.x] + fixed[threadIdx.x % 64];\n"
             "}\n";
  return toy;
}

const NvrtcApi& RealNvrtc() {
  static const NvrtcApi api = [] {
    const std::string folder = REGARD_TEST_NVRTC_FOLDER;
    std::string file = CallersNvrtc();
    if (const auto files = NvrtcFilesIn(folder); file.empty() && !files.empty()) file = files.front().path;
    if (file.empty()) return LoadNvrtc("", 0, {folder}, false);
    return LoadNvrtc(file, 0, {});
  }();
  return api;
}

std::string Fake(const std::string& name) { return std::string(REGARD_TEST_FAKES) + "/libfake_" + name + ".so"; }

FakeDriverState& FreshDriver() {
  void* library = dlopen(Fake("driver").c_str(), RTLD_NOW);
  auto* state = reinterpret_cast<FakeDriverState* (*)()>(dlsym(library, "fake_driver_state"))();
  *state = FakeDriverState{};
  return *state;
}

int FakeCompiles() {
  void* library = dlopen(Fake("nvrtc13").c_str(), RTLD_NOW);
  return reinterpret_cast<int (*)()>(dlsym(library, "fake_nvrtc_compiles"))();
}

}  // namespace regard::cuda

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (const char* file = std::getenv("REGARD_NVRTC")) regard::cuda::CallersNvrtc() = file;
  setenv("REGARD_LIBCUDA", regard::cuda::Fake("driver").c_str(), 1);
  setenv("REGARD_NVRTC", regard::cuda::Fake("nvrtc13").c_str(), 1);
  const regard::cuda::TemporaryFolder cache;
  setenv("REGARD_CUDA_CACHE", cache.path().c_str(), 1);
  return RUN_ALL_TESTS();
}
