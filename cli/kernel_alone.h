// The time of a launch's kernel alone: the tile code that the launch ends in, called again and again with the very
// arguments of that launch. What a launch takes beyond it is regard's own overhead: checks, sequences, schedule.
#pragma once

#include "cli/prepared_case.h"

namespace regard::cli {

class KernelAlone {
 public:
  // Launches `prepared` once to learn the arguments; it outlives this object and is not launched in between. One object
  // at a time. Throws Error{"case"} unless a CPU kernel runs the case as one task on one thread.
  explicit KernelAlone(const PreparedCase& prepared);
  double Seconds(int calls) const;  // of one call, mean over so many in a row; each writes the case's output
};

}  // namespace regard::cli
