#include "cli/page_kind.h"

#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <fstream>

#include <fmt/format.h>

namespace regard::cli {

std::string PageKind(const void* data, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data), end = begin + bytes;
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  double resident_kib = 0, huge_kib = 0;
  while (std::getline(maps, line)) {
    std::uintptr_t from = 0, to = 0;
    double kib = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2) {
      inside = from < end && begin < to;
    } else if (inside && std::sscanf(line.c_str(), "Rss: %lf kB", &kib) == 1) {
      resident_kib += kib;
    } else if (inside && (std::sscanf(line.c_str(), "AnonHugePages: %lf kB", &kib) == 1 ||
                          std::sscanf(line.c_str(), "Private_Hugetlb: %lf kB", &kib) == 1)) {
      huge_kib += kib;
    }
  }
  if (resident_kib == 0) return "page kind unknown";
  const double percent = 100 * std::min(huge_kib / resident_kib, 1.0);
  if (percent >= 95) return "huge pages";
  if (percent < 1) return fmt::format("{} KiB pages", sysconf(_SC_PAGESIZE) / 1024);
  return fmt::format("{:.0f} % on huge pages", percent);
}

}  // namespace regard::cli
