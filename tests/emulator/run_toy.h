// Launches a lambda as a kernel, for tests: every thread calls it with no argument.
#pragma once

#include <gtest/gtest.h>

#include "tests/emulator/engine.h"

namespace regard::emulator {

template <class Body>
LaunchResult RunToy(const LaunchShape& shape, const Body& body, const LaunchOptions& options = {}) {
  LaunchResult result = Launch(
      shape, [](const void* p) { (*static_cast<const Body*>(p))(); }, &body, options);
  if (result.report) ADD_FAILURE() << result.report->Text();
  return result;
}

inline LaunchShape Shape(int threads = 32, std::uint32_t shared_bytes = 0, int arch = 80) {
  LaunchShape shape;
  shape.kernel = "toy";
  shape.threads = threads;
  shape.shared_bytes = shared_bytes;
  shape.arch = arch;
  return shape;
}

}  // namespace regard::emulator
