// REGARD_TUNE for the length of a scope.
#pragma once

#include <cstdlib>
#include <optional>
#include <string>

namespace regard::testing {

class Tuned {
 public:
  explicit Tuned(const char* text) {
    if (const char* before = std::getenv("REGARD_TUNE")) before_ = before;
    setenv("REGARD_TUNE", text, 1);
  }
  ~Tuned() { before_ ? setenv("REGARD_TUNE", before_->c_str(), 1) : unsetenv("REGARD_TUNE"); }
  Tuned(const Tuned&) = delete;
  Tuned& operator=(const Tuned&) = delete;

 private:
  std::optional<std::string> before_;
};

}  // namespace regard::testing
