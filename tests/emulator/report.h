// What the emulator finds wrong with a kernel, and where. A launch stops at its first finding.
#pragma once

#include <cstdint>
#include <string>

namespace regard::emulator {

// A line of kernel source. As a default argument, Here() is the line of the call.
struct Site {
  const char* file = "";
  int line = 0;
};
constexpr Site Here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return {file, line};
}
// Both name the same line; the same path may be stored twice.
bool SameSite(const Site& a, const Site& b);
// "forward.h:12"
std::string Print(const Site& site);

enum class Finding {
  kGlobalBounds,  // outside every allocation, or past the end of one
  kFreedMemory,
  kMisaligned,
  kSharedBounds,
  kUninitialisedShared,
  kPendingCopy,         // cp.async data read or overwritten before its wait
  kSharedRace,          // two threads, no barrier between, one of them writes
  kDivergence,          // lanes of a warp at different collectives, or a lane gone
  kDeadlock,            // a block barrier that some thread never reaches
  kUnknownInstruction,  // the emulated chip does not have it
};
const char* Name(Finding finding);

struct EmulatorReport {
  Finding finding = Finding::kGlobalBounds;
  std::string kernel;
  int block[3] = {0, 0, 0};
  int thread = 0;
  Site site;
  std::string what;

  // "shared race: KERNEL, block (1, 0, 0), thread 33, planted.cc:17: ..."
  std::string Text() const;
};

}  // namespace regard::emulator
