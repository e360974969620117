// An instance: one compiled kernel, before compilation. Its text is a few lines that include an algorithm's header and
// fix its configuration; the first line is `// instance NAME`, the entry point `extern "C" __global__ regard_kernel`.
#pragma once

#include <cstddef>
#include <string>

namespace regard::cuda {

inline constexpr const char* kEntryPoint = "regard_kernel";

struct KernelInstance {
  std::string name;           // unique for a text: the configuration, printed
  std::string text;           // translation unit; includes are relative to src/cuda/kernels
  int threads = 0;            // of a block
  int min_blocks = 1;         // resident blocks of a multiprocessor that the launch bounds ask for
  unsigned shared_bytes = 0;  // dynamic shared memory of a block
  bool arch_specific = false;  // needs the features of one architecture only: sm_90a, not sm_90
};

// What code is generated for: sm_80 is {80}, sm_90a is {90, true}.
struct Arch {
  int sm = 0;
  bool specific = false;
  Arch() = default;
  Arch(int sm_number, bool arch_specific = false) : sm(sm_number), specific(arch_specific) {}
  std::string Name() const { return "sm_" + std::to_string(sm) + (specific ? "a" : ""); }
  friend bool operator==(const Arch&, const Arch&) = default;
};

// "sm_80", "sm_90a" or "80"; throws Error{field} otherwise.
Arch ParseArch(const std::string& field, const std::string& text);

}  // namespace regard::cuda
