// The generated cases that every kernel is checked on (`regard check`): small problems that together reach
// every type, head dim, length, layout and option, and every pair of options.
#pragma once

#include <vector>

#include "regard/problem.h"

namespace regard::cases {

enum class GridSize { kQuick, kAll };

// kAll: thousands of cases, minutes. kQuick: every 17th of them, seconds; 17 shares no factor with the periods of the
// grid, so each value of each axis is still met. Legal problems, each with its own seed (odd and even in turn).
std::vector<Problem> Grid(GridSize size);

}  // namespace regard::cases
