// Where and with what a measurement was made, for its JSON.
#pragma once

#include <string>

namespace regard::cli {

// "g++ 12.2.0", "clang 14.0.6".
std::string Compiler();

// The commit of the work tree that CMake configured, with "-dirty" where tracked files had changed; "unknown" where
// regard was not built from one.
std::string Commit();

}  // namespace regard::cli
