// The subcommands of `regard cuda`, and what they share.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "src/cuda/driver/instance.h"

namespace regard::cli {

void RegisterCudaCompile(CLI::App& cuda, int& exit_code);  // cuda_compile.cc
void RegisterCudaWarm(CLI::App& cuda);                    // cuda_warm.cc

// "sm_80", "sm_80,sm_90a": each once, in the order given.
std::vector<cuda::Arch> ParseArchs(const std::vector<std::string>& words);

}  // namespace regard::cli
