// Shared by the CUDA driver's tests: folders that vanish, toy kernels, the NVRTC of this machine, the fakes' paths.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "src/cuda/driver/instance.h"
#include "src/cuda/driver/nvrtc.h"
#include "tests/cuda/fakes/fake_driver.h"

namespace regard::cuda {

class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& bytes);  // makes its folder

// Copies blocks of `threads` floats backwards through dynamic and static shared memory.
KernelInstance Toy(const std::string& name = "toy", int threads = 128);

// The real NVRTC that was set up for the tests; its status says why there is none.
const NvrtcApi& RealNvrtc();
#define REGARD_NEEDS_NVRTC() \
  if (!RealNvrtc().status.ok) GTEST_SKIP() << RealNvrtc().status.reason << "; run scripts/setup_cuda"

// Shared libraries of fakes/: "nvrtc12", "nvrtc13", "driver", ...
std::string Fake(const std::string& name);
// The fake driver that this program runs on, as new.
FakeDriverState& FreshDriver();
int FakeCompiles();  // of the fake NVRTC 13

// The error that `body` throws, as field + ": " + value + "; " + expected; "nothing" where it throws none.
template <class Body>
std::string ErrorOf(Body&& body);

}  // namespace regard::cuda

#include "regard/status.h"

template <class Body>
std::string regard::cuda::ErrorOf(Body&& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.field() + ": " + e.value() + "; " + e.expected();
  }
  return "nothing";
}
