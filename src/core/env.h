// The one place that reads REGARD_* environment variables.
//
//   REGARD_BACKENDS   comma-separated kernel patterns, the order of preference of Select ("cpu.avx2,reference"); with a
//                     minus sign before it a pattern excludes ("-cpu.avx512_bf16")
//   REGARD_CPU_ISA    scalar | neon | avx2 | avx512 | avx512_bf16: the best instruction set that CPU kernels may use
//   REGARD_THREADS    threads of the default executor, 1..4096
//   REGARD_TUNE       settings of CPU plans for experiments (src/cpu/tune.h), read by every plan
//   REGARD_LIBCUDA    the file of the CUDA driver, instead of libcuda.so.1 on the loader's path
//   REGARD_NVRTC      the file of NVRTC, instead of a search for libnvrtc.so
//   REGARD_CUDA_CACHE        folder of compiled CUDA kernels, instead of ~/.cache/regard/cuda
//   REGARD_CUDA_CACHE_BYTES  what that folder may hold, 0 for nothing; 1 GiB if not given
//
// An unknown REGARD_* variable and a value that does not parse are named on stderr once a process, and then ignored.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "regard/device.h"

namespace regard {

inline constexpr int kMaxThreads = 4096;

struct EnvSettings {
  std::vector<std::string> backends;  // empty: not given
  std::optional<Isa> cpu_isa;
  std::optional<int> threads;
  std::string libcuda, nvrtc, cuda_cache;  // "": not given
  std::optional<std::int64_t> cuda_cache_bytes;
};

// This process's environment, read at the first call.
const EnvSettings& Env();

// Pure: settings of an environment (null-terminated "NAME=value" strings); appends one line a warning to *warnings.
EnvSettings ParseEnv(char** environment, std::string* warnings);

// REGARD_TUNE as it stands now; "" where it is not set.
std::string TuneVariable();

// CPUs that this process may run on (its affinity mask), at least 1.
int AvailableCpus() noexcept;
// Threads that regard uses by default: settings.threads, else AvailableCpus().
int DefaultThreads(const EnvSettings& settings) noexcept;

}  // namespace regard
