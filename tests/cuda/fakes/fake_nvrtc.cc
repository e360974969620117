// A stand-in for NVRTC of version FAKE_MAJOR.FAKE_MINOR: it "compiles" a program to its own text, and refuses one that
// contains "#error"; "#crash" ends the process. Counts compiles, so that tests see what was compiled once.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

namespace {

struct Program {
  std::string text, log;
};
std::atomic<int> compiles{0};
constexpr int kArchs[] = {FAKE_MAJOR >= 13 ? 75 : 50, 80, 86, 90};

}  // namespace

extern "C" {

int fake_nvrtc_compiles() { return compiles; }

int nvrtcVersion(int* major, int* minor) {
  *major = FAKE_MAJOR;
  *minor = FAKE_MINOR;
  return 0;
}
int nvrtcGetNumSupportedArchs(int* count) {
  *count = static_cast<int>(sizeof(kArchs) / sizeof(kArchs[0]));
  return 0;
}
int nvrtcGetSupportedArchs(int* archs) {
  std::memcpy(archs, kArchs, sizeof(kArchs));
  return 0;
}
int nvrtcCreateProgram(Program** program, const char* text, const char*, int, const char* const*, const char* const*) {
  *program = new Program{text, {}};
  return 0;
}
int nvrtcDestroyProgram(Program** program) {
  delete *program;
  *program = nullptr;
  return 0;
}
int nvrtcCompileProgram(Program* program, int, const char* const*) {
  ++compiles;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // long enough for a second thread to ask meanwhile
  if (program->text.find("#crash") != std::string::npos) std::abort();
  if (program->text.find("#error") == std::string::npos) return 0;
  program->log = "fake.cu(1): error: #error directive\n1 error detected in the compilation of \"fake.cu\".\n";
  return 6;
}
int nvrtcGetCUBINSize(Program* program, std::size_t* bytes) {
  *bytes = program->text.size();
  return 0;
}
int nvrtcGetCUBIN(Program* program, char* cubin) {
  std::memcpy(cubin, program->text.data(), program->text.size());
  return 0;
}
#ifndef FAKE_WITHOUT_LOG
int nvrtcGetProgramLogSize(Program* program, std::size_t* bytes) {
  *bytes = program->log.size() + 1;
  return 0;
}
#endif
int nvrtcGetProgramLog(Program* program, char* log) {
  std::memcpy(log, program->log.c_str(), program->log.size() + 1);
  return 0;
}

}  // extern "C"
