// Whether a part of the CUDA side is there; where not, why, and what would change that (the words of `regard explain`).
#pragma once

#include <string>
#include <utility>

namespace regard::cuda {

struct Status {
  bool ok = true;
  std::string reason;  // "no CUDA driver found (libcuda.so.1)"
  std::string remedy;  // "install the NVIDIA driver, or set REGARD_BACKENDS=cpu to silence"

  static Status Missing(std::string why, std::string what_to_do) {
    return {false, std::move(why), std::move(what_to_do)};
  }
};

}  // namespace regard::cuda
