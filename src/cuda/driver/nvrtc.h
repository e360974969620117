// NVRTC, the compiler of CUDA kernels at run time: found and opened at the first use, kept for the life of the process.
// Compile turns an instance into a cubin for one architecture; it reads no file, all headers come from memory.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "src/cuda/driver/instance.h"
#include "src/cuda/driver/nvrtc_abi.h"
#include "src/cuda/driver/status.h"
#include "src/cuda/sources.h"

namespace regard::cuda {

struct NvrtcApi : abi::NvrtcEntryPoints {
  Status status;
  std::string path;             // of the library
  int major = 0, minor = 0;     // 13, 5
  std::vector<int> archs;       // what it makes code for: 75, 80, ...
  std::vector<std::string> tried;  // every place looked at

  std::string VersionText() const { return std::to_string(major) + "." + std::to_string(minor); }
};

// The best NVRTC here: what REGARD_NVRTC names, else the first found that this machine's driver can load code of.
const NvrtcApi& Nvrtc();
// The first found, whatever the driver: for compiling what is only looked at. Loads no driver.
const NvrtcApi& OfflineNvrtc();

// The same search, not kept. `file` is REGARD_NVRTC or ""; `driver_version` 0 asks for any, 12040 for at most CUDA 12;
// `folders` are looked at after the loader's path, which is left out where `loader_path` is false.
NvrtcApi LoadNvrtc(const std::string& file, int driver_version, const std::vector<std::string>& folders,
                   bool loader_path = true);

// Whether this NVRTC makes code for an architecture; the remedy names the NVRTC that does.
Status CanCompile(const NvrtcApi& nvrtc, const Arch& arch);

// The architecture to compile for so that a device of compute capability `sm` runs it: itself, else the nearest older
// one of the same generation (code for sm_80 runs on sm_86). `specific` stays only where it is exact.
Arch ArchFor(const NvrtcApi& nvrtc, int sm, bool specific);

struct Compiled {
  std::string cubin;  // bytes
  std::string log;    // with what ptxas -v says of registers, spills and shared memory
  double seconds = 0;
};

// Options of every compile for an architecture; part of the key of the module cache.
std::vector<std::string> CompileOptions(const Arch& arch);

// Throws Error{"cuda.compile", the instance's name and the first errors of the log, ...} where the source is refused,
// and Error{"cuda"} where the compiler is not there or does not know the architecture. Safe from many threads.
Compiled Compile(const KernelInstance& instance, const Arch& arch, const NvrtcApi& nvrtc = Nvrtc(),
                 std::span<const EmbeddedFile> headers = EmbeddedSources().files);

}  // namespace regard::cuda
