// What the fake driver's entry points share: contexts of each host thread, modules, and the record of launches.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "src/cuda/driver/cuda_abi.h"
#include "tests/emulator/fake/control.h"
#include "tests/emulator/registry.h"

namespace regard::cuda::abi {

// What the handles of the ABI point to.
struct CUctx_st {
  int device = 0;
};
struct CUfunc_st {
  const regard::emulator::EmulatedKernel* kernel = nullptr;
  int most_shared = 48 << 10;  // dynamic bytes that a launch may ask for
};
struct CUmod_st {
  CUfunc_st function;
};
struct CUstream_st {
  int device = 0;
};
struct CUevent_st {
  double seconds = -1;  // when it was recorded
};

}  // namespace regard::cuda::abi

namespace regard::emulator::fake {

// One lock for everything: calls of the driver are serial, and so is their work.
std::mutex& Mutex();

// The current context of this host thread; null: none.
cuda::abi::CUctx_st* CurrentContext();

struct Record {
  std::vector<std::string> reports;
  std::vector<KernelUse> uses;
  LaunchOptions options;
};
Record& Launches();

// A line on stderr, since the driver can only give back a number.
int Refuse(int result, const char* entry, const std::string& why);

}  // namespace regard::emulator::fake
