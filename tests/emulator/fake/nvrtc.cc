// A stand-in for NVRTC 13.5: a program "compiles" to its own text, with a last line that says for which chip, and the
// fake driver finds the emulated kernel by the first one.
#include <cstring>
#include <string>

#include "src/cuda/driver/nvrtc_abi.h"

using namespace regard::cuda::abi;

struct regard::cuda::abi::_nvrtcProgram {
  std::string text, log;
};

#define REGARD_FAKE_API __attribute__((visibility("default")))

namespace {

constexpr int kArchs[] = {75, 80, 86, 87, 89, 90, 100, 103, 120};
constexpr const char kArchOption[] = "-arch=";

}  // namespace

extern "C" {

REGARD_FAKE_API nvrtcResult nvrtcVersion(int* major, int* minor) {
  *major = 13;
  *minor = 5;
  return NVRTC_SUCCESS;
}
REGARD_FAKE_API nvrtcResult nvrtcGetNumSupportedArchs(int* count) {
  *count = static_cast<int>(sizeof(kArchs) / sizeof(kArchs[0]));
  return NVRTC_SUCCESS;
}
REGARD_FAKE_API nvrtcResult nvrtcGetSupportedArchs(int* archs) {
  std::memcpy(archs, kArchs, sizeof(kArchs));
  return NVRTC_SUCCESS;
}
REGARD_FAKE_API nvrtcResult nvrtcCreateProgram(nvrtcProgram* program, const char* source, const char*, int,
                                               const char* const*, const char* const*) {
  *program = new _nvrtcProgram{source, {}};
  return NVRTC_SUCCESS;
}
REGARD_FAKE_API nvrtcResult nvrtcDestroyProgram(nvrtcProgram* program) {
  delete *program;
  *program = nullptr;
  return NVRTC_SUCCESS;
}
REGARD_FAKE_API nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int count, const char* const* options) {
  for (int i = 0; i < count; ++i) {
    const std::string option = options[i];
    const std::size_t at = option.find(kArchOption);
    if (at == std::string::npos) continue;
    program->text += "\n// compiled for " + option.substr(at + sizeof(kArchOption) - 1) + "\n";
    return NVRTC_SUCCESS;
  }
  program->log = "error: no -arch= among the options\n";
  return NVRTC_ERROR_COMPILATION;
}
REGARD_FAKE_API nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, std::size_t* bytes) {
  *bytes = program->text.size() + 1;
  return NVRTC_SUCCESS;
}
REGARD_FAKE_API nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char* cubin) {
  std::memcpy(cubin, program->text.c_str(), program->text.size() + 1);
  return NVRTC_SUCCESS;
}
REGARD_FAKE_API nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, std::size_t* bytes) {
  *bytes = program->log.size() + 1;
  return NVRTC_SUCCESS;
}
REGARD_FAKE_API nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char* log) {
  std::memcpy(log, program->log.c_str(), program->log.size() + 1);
  return NVRTC_SUCCESS;
}

}  // extern "C"
