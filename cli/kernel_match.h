// Kernels that a pattern names: a kernel's name, or a dotted prefix of one ("cpu", "cpu.avx2").
#pragma once

#include <string>
#include <vector>

#include "src/backend/kernel_info.h"

namespace regard::cli {

// All kernels for an empty pattern. Throws Error{"--kernel"} where none matches, with the nearest name.
std::vector<const KernelInfo*> KernelsMatching(const std::string& pattern);

}  // namespace regard::cli
