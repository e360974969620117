#include "src/cuda/driver/driver_api.h"

#include "regard/status.h"
#include "src/core/env.h"
#include "src/cuda/driver/library.h"

namespace regard::cuda {
namespace {

constexpr const char* kSoname = "libcuda.so.1";
constexpr int kOldestVersion = 12000;
constexpr const char* kInstall = "install the NVIDIA driver, or set REGARD_BACKENDS=cpu to silence";
constexpr const char* kUpdate = "install an NVIDIA driver of version 525 or later (CUDA 12.0)";

template <class Function>
bool Resolve(void* library, const char* name, Function** function) {
  *function = reinterpret_cast<Function*>(Symbol(library, name));
  return *function != nullptr;
}

Status Load(const std::string& file, DriverApi* api) {
  std::string said;
  void* library = OpenLibrary(file.empty() ? kSoname : file, &said);
  if (library == nullptr) {
    if (file.empty()) return Status::Missing("no CUDA driver found (libcuda.so.1)", kInstall);
    return Status::Missing("REGARD_LIBCUDA=" + file + " cannot be loaded: " + said,
                           "name the libcuda.so.1 of an NVIDIA driver, or unset it");
  }
  if (!Resolve(library, "cuDriverGetVersion", &api->driver_get_version) ||
      api->driver_get_version(&api->version) != abi::CUDA_SUCCESS) {
    return Status::Missing(std::string(file.empty() ? kSoname : file) + " is no CUDA driver (cuDriverGetVersion fails)",
                           kInstall);
  }
  api->path = FileOf(reinterpret_cast<void*>(api->driver_get_version), file.empty() ? kSoname : file);
  if (api->version < kOldestVersion) {
    return Status::Missing("the CUDA driver is of CUDA " + VersionText(api->version) + ", regard needs 12.0", kUpdate);
  }
  const char* absent = nullptr;
#define REGARD_RESOLVE(field, symbol, parameters) \
  if (!Resolve(library, #symbol, &api->field)) absent = #symbol;
  REGARD_CUDA_ENTRY_POINTS(REGARD_RESOLVE)
#undef REGARD_RESOLVE
#define REGARD_RESOLVE(field, symbol, parameters) Resolve(library, #symbol, &api->field);
  REGARD_CUDA_OPTIONAL_ENTRY_POINTS(REGARD_RESOLVE)
#undef REGARD_RESOLVE
  if (absent != nullptr) return Status::Missing(api->path + " has no " + absent, kUpdate);
  const abi::CUresult result = api->init(0);
  if (result == abi::CUDA_ERROR_NO_DEVICE) {
    return Status::Missing("the CUDA driver finds no GPU", "check nvidia-smi and CUDA_VISIBLE_DEVICES");
  }
  if (result != abi::CUDA_SUCCESS) {
    return Status::Missing("the CUDA driver does not start (cuInit: " + ErrorText(*api, result) + ")",
                           "check nvidia-smi; after an update of the driver, reboot");
  }
  int count = 0;
  if (api->device_get_count(&count) != abi::CUDA_SUCCESS || count == 0) {
    return Status::Missing("the CUDA driver finds no GPU", "check nvidia-smi and CUDA_VISIBLE_DEVICES");
  }
  return {};
}

}  // namespace

DriverApi LoadDriver(const std::string& file) {
  DriverApi api;
  api.status = Load(file, &api);
  return api;
}

const DriverApi& Driver() {
  static const auto& api = *new DriverApi(LoadDriver(Env().libcuda));  // never destroyed: threads may still launch
  return api;
}

const DriverApi& NeedDriver() {
  const DriverApi& api = Driver();
  if (!api.status.ok) throw Error("cuda", api.status.reason, api.status.remedy);
  return api;
}

std::string ErrorText(const DriverApi& api, abi::CUresult result) {
  const char* name = nullptr;
  const char* words = nullptr;
  if (api.get_error_name == nullptr || api.get_error_name(result, &name) != abi::CUDA_SUCCESS || name == nullptr) {
    return "error " + std::to_string(result);
  }
  std::string text = name;
  if (api.get_error_string(result, &words) == abi::CUDA_SUCCESS && words != nullptr) {
    text += " (" + std::string(words) + ")";
  }
  return text;
}

void CheckResult(abi::CUresult result, const char* what, const char* expected) {
  if (result == abi::CUDA_SUCCESS) return;
  throw Error("cuda", std::string(what) + ": " + ErrorText(Driver(), result), expected);
}

std::string VersionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace regard::cuda
