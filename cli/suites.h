// Named lists of bench cases.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace regard::cli {

struct Suite {
  const char* name;
  const char* about;
  std::vector<std::string> cases;
};

std::span<const Suite> Suites();
// Throws Error{"--suite"} naming the known ones.
const Suite& FindSuite(const std::string& name);

}  // namespace regard::cli
