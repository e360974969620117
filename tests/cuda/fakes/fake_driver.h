// What tests see of fake_driver.cc: a CUDA driver of two devices (sm_80 and sm_87) over host memory that runs nothing,
// but records what it is asked to do. The same functions as a library of an old driver, or of one without a GPU, by
// macros.
#pragma once

#include <string>
#include <vector>

struct FakeLaunch {
  std::string module;  // the image's text
  unsigned grid[3] = {}, block[3] = {};
  unsigned shared_bytes = 0;
  void* stream = nullptr;
  void* context = nullptr;  // current at the launch
  int parameter = 0;        // the first int of the kernel's argument
};

struct FakeDriverState {
  std::vector<std::string> calls;  // names of entry points, in order
  std::vector<FakeLaunch> launches;
  std::vector<void*> context_stack;
  int modules_loaded = 0, modules_unloaded = 0, retained = 0;
  int shared_opt_in = 0;          // the last value set
  int max_threads = 1024;         // of every function
  int fail_load = 0, fail_launch = 0, fail_alloc = 0;  // results to return instead
  long allocated_bytes = 0;       // that are not freed
};

extern "C" FakeDriverState* fake_driver_state();
extern "C" void* fake_context(int device, int number);  // contexts of a device; number 0 is the primary one
