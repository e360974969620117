// Findings as text.
#include "tests/emulator/report.h"

#include <cstring>

namespace regard::emulator {

bool SameSite(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

std::string Print(const Site& site) {
  const char* name = std::strrchr(site.file, '/');
  return std::string(name ? name + 1 : site.file) + ":" + std::to_string(site.line);
}

const char* Name(Finding finding) {
  switch (finding) {
    case Finding::kGlobalBounds:
      return "global memory out of bounds";
    case Finding::kFreedMemory:
      return "use of freed memory";
    case Finding::kMisaligned:
      return "misaligned access";
    case Finding::kSharedBounds:
      return "shared memory out of bounds";
    case Finding::kUninitialisedShared:
      return "read of uninitialised shared memory";
    case Finding::kPendingCopy:
      return "use of cp.async data before its wait";
    case Finding::kSharedRace:
      return "shared race";
    case Finding::kDivergence:
      return "divergent collective";
    case Finding::kDeadlock:
      return "deadlock";
    case Finding::kUnknownInstruction:
      return "unknown instruction";
  }
  return "";
}

std::string EmulatorReport::Text() const {
  const std::string at = std::to_string(block[0]) + ", " + std::to_string(block[1]) + ", " + std::to_string(block[2]);
  return std::string(Name(finding)) + ": " + kernel + ", block (" + at + "), thread " + std::to_string(thread) + ", " +
         Print(site) + ": " + what;
}

}  // namespace regard::emulator
