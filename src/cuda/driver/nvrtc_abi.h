// What regard uses of NVRTC (libnvrtc.so.N), declared here so that no toolkit is needed to build: the ABI under the
// names that the documentation of NVRTC gives it. Everything here is in CUDA 12.0 and later.
#pragma once

#include <cstddef>

namespace regard::cuda::abi {

using nvrtcResult = int;
using nvrtcProgram = struct _nvrtcProgram*;

inline constexpr nvrtcResult NVRTC_SUCCESS = 0;
inline constexpr nvrtcResult NVRTC_ERROR_COMPILATION = 6;

// Every entry point that regard calls: X(field, symbol, parameters). All return nvrtcResult.
#define REGARD_NVRTC_ENTRY_POINTS(X)                                                                             \
  X(version, nvrtcVersion, (int* major, int* minor))                                                             \
  X(get_num_supported_archs, nvrtcGetNumSupportedArchs, (int* count))                                            \
  X(get_supported_archs, nvrtcGetSupportedArchs, (int* archs))                                                   \
  X(create_program, nvrtcCreateProgram,                                                                          \
    (nvrtcProgram * program, const char* source, const char* name, int headers, const char* const* header_texts, \
     const char* const* header_names))                                                                           \
  X(destroy_program, nvrtcDestroyProgram, (nvrtcProgram * program))                                              \
  X(compile_program, nvrtcCompileProgram, (nvrtcProgram program, int count, const char* const* options))         \
  X(get_cubin_size, nvrtcGetCUBINSize, (nvrtcProgram program, std::size_t* bytes))                               \
  X(get_cubin, nvrtcGetCUBIN, (nvrtcProgram program, char* cubin))                                               \
  X(get_log_size, nvrtcGetProgramLogSize, (nvrtcProgram program, std::size_t* bytes))                            \
  X(get_log, nvrtcGetProgramLog, (nvrtcProgram program, char* log))

struct NvrtcEntryPoints {
#define REGARD_FIELD(field, symbol, parameters) nvrtcResult(*field) parameters = nullptr;
  REGARD_NVRTC_ENTRY_POINTS(REGARD_FIELD)
#undef REGARD_FIELD
};

}  // namespace regard::cuda::abi
