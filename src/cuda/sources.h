// The device sources of src/cuda/kernels as they were when the library was built: NVRTC gets them from here, so that an
// installed library needs no file. Made by cmake/embed_cuda.cmake.
#pragma once

#include <span>

namespace regard::cuda {

struct EmbeddedFile {
  const char* name;  // relative to src/cuda/kernels: "ptx/mma.h"
  const char* text;
};

struct EmbeddedSet {
  std::span<const EmbeddedFile> files;  // sorted by name
  const char* hash;                     // SHA-256 over names and texts, hexadecimal
};

EmbeddedSet EmbeddedSources();

}  // namespace regard::cuda
