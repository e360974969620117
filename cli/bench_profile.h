// `regard bench --profile`: where the time of a launch goes, by the time stamps in the CPU kernels.
#pragma once

#include <string>
#include <vector>

#include "cli/prepared_case.h"

namespace regard::cli {

struct Profile {
  struct Phase {
    std::string name;    // pack, qk, softmax, pv, merge, rest
    double percent = 0;  // of the time that all threads spend in tasks; 100 together
    double ms = 0;       // that share of a launch
  };
  std::vector<Phase> phases;  // empty where why_not says why
  int launches = 0;           // with time stamps
  std::string why_not;
};

// Launches `prepared`, which has been launched before, some times with time stamps on. `launch_ms`: a launch without.
Profile ProfileOf(const PreparedCase& prepared, double launch_ms);

// A line that names case and kernel, then a table of the phases with a bar for each; or why there is none.
std::string ProfileText(const std::string& text, const std::string& kernel, const Profile& profile);

}  // namespace regard::cli
