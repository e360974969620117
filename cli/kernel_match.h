// Kernels that a pattern names: a kernel's name, or a dotted prefix of one ("cpu", "cpu.avx2").
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "src/backend/kernel_info.h"

namespace regard::cli {

// All kernels for an empty pattern. Throws Error{"--kernel"} where none matches, with the nearest name.
std::vector<const KernelInfo*> KernelsMatching(const std::string& pattern);

// The option --backend: cpu, cuda or reference.
void AddBackend(CLI::App& command, std::string& backend);
// The pattern of --kernel or of --backend, of which one at most may be given; empty: neither. Throws Error.
std::string PatternOf(const std::string& kernel, const std::string& backend);

}  // namespace regard::cli
