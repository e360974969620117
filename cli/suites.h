// Named lists of bench cases, and of rows with goals.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "cli/rows.h"

namespace regard::cli {

struct Suite {
  const char* name;
  const char* about;
  std::vector<std::string> cases;
  std::vector<Row> rows = {};  // a suite has cases or rows
};

std::span<const Suite> Suites();
// Throws Error{"--suite"} naming the known ones.
const Suite& FindSuite(const std::string& name);

// Every figure that the CPU kernels should reach, with its goal (suite_cpu.cc).
std::vector<Row> CpuRows();
// The backward pass: its goals (suite_backward.cc).
std::vector<Row> BackwardRows();
// The CUDA kernels on the first GPU, without goals (suite_gpu.cc).
std::vector<Row> GpuRows();

}  // namespace regard::cli
