// The cases that the emulator runs, each on one pretended GPU, and the kernels that they need there. write_instances.cc
// compiles exactly those; emulated_cases_test.cc runs them.
#pragma once

#include <string>
#include <vector>

#include "regard/device.h"
#include "regard/problem.h"
#include "src/backend/kernel_info.h"
#include "src/cuda/driver/instance.h"
#include "tests/support/sequence_data.h"

namespace regard::emulator {

// The fake driver's devices, in its order.
inline constexpr const char* kGpus[] = {"T4", "A100", "RTX 4090", "H100"};
inline constexpr const char* kGpuList = "T4,A100,RTX 4090,H100";

struct EmulatedCase {
  int device = 0;  // of kGpus
  Problem problem;
};

// The quick grid (src/cases/grid.h) but for what no GPU takes, the GPUs in turn, and the cases below it: long keys that
// need several splits, and each kernel of each generation.
std::vector<EmulatedCase> EmulatedCases();

// The rows of the table that can do a problem on a device.
std::vector<const KernelInfo*> RowsFor(const Problem& p, const DeviceCaps& caps);

// Calls of hostile_tables_test.cc: three sequences in pages with a block table, in CSR pages, packed, and in a cache
// that is appended to.
std::vector<const char*> HostileProblems();

// One sequence each: the types, plain and with options. emulated_invariance_test.cc cuts it up.
std::vector<testing::Shape> InvarianceShapes();

// What the plans of all of them compile, by every row that can do a case, each kernel once.
std::vector<cuda::KernelInstance> CaseInstances();

}  // namespace regard::emulator
