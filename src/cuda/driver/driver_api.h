// The CUDA driver as a table of entry points, filled by dlopen of libcuda.so.1 (or of the file that REGARD_LIBCUDA
// names) at the first use and kept for the life of the process. Where the driver is absent, too old or finds no GPU,
// `status` says so and nothing else may be used.
#pragma once

#include <string>

#include "src/cuda/driver/cuda_abi.h"
#include "src/cuda/driver/status.h"

namespace regard::cuda {

struct DriverApi : abi::CudaEntryPoints {
  Status status;
  std::string path;  // of the library
  int version = 0;   // 12040 is CUDA 12.4; 0 where there is no driver
};

// Loads and calls cuInit once; safe from many threads.
const DriverApi& Driver();

// The same from a file of the caller's choice ("" is libcuda.so.1), not kept: for tests.
DriverApi LoadDriver(const std::string& file);

// Throws Error{"cuda", status.reason, status.remedy} where there is no usable driver.
const DriverApi& NeedDriver();

// "CUDA_ERROR_OUT_OF_MEMORY (out of memory)"
std::string ErrorText(const DriverApi& api, abi::CUresult result);
// Throws Error{"cuda", "<what>: CUDA_ERROR_...", expected} for anything but success.
void CheckResult(abi::CUresult result, const char* what, const char* expected = "success");

// "12.4"
std::string VersionText(int version);

}  // namespace regard::cuda
