// Cases on the command line: quoted ("decode b=1 ...") or as loose words (decode b=1 ...), several of either.
#pragma once

#include <string>
#include <vector>

namespace regard::cli {

// A word that starts with a phase, or that contains a space, begins a case; other words belong to the case before them.
std::vector<std::string> JoinCases(const std::vector<std::string>& words);

}  // namespace regard::cli
