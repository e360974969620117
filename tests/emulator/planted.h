// Tiny kernels with a bug each, and their corrected twins: what the emulator's detectors must find, and must not.
// A new detector comes with a new entry; planted_test.cc runs them all.
#pragma once

#include <span>

#include "tests/emulator/engine.h"

namespace regard::emulator {

// Global memory of a planted kernel: 64 floats to read, 64 to write.
struct PlantedParams {
  const float* in = nullptr;
  float* out = nullptr;
  const float* released = nullptr;  // freed before the launch
};

struct Planted {
  const char* name;  // of the bug, in words
  void (*wrong)(const PlantedParams&);
  void (*right)(const PlantedParams&);
  Finding finding;
  const char* words;  // that the report holds
  int threads = 32;
  int arch = 80;  // of the wrong one; the right one runs on 80
};

std::span<const Planted> PlantedInMemory();        // global and shared, one thread at a time
std::span<const Planted> PlantedBetweenThreads();  // races, copies
std::span<const Planted> PlantedInCollectives();   // divergence, barriers, chips

inline constexpr std::uint32_t kPlantedShared = 1024;  // bytes of shared memory of each

}  // namespace regard::emulator
