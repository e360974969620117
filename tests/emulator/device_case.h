// A generated case on a GPU: every tensor of the call copied into an allocation of exactly its bytes, so that an access
// beside it is found.
#pragma once

#include <vector>

#include "regard/attention.h"
#include "src/cuda/driver/memory.h"

namespace regard::emulator {

// Owns the device memory; `host` must outlive it.
class DeviceCase {
 public:
  DeviceCase(const AttentionArgs& host, int device);

  const AttentionArgs& args() const { return args_; }  // views of the device
  // out and lse, and k and v (which an append writes), into the host's tensors.
  void CopyBack() const;

 private:
  TensorView Copy(const TensorView& view);

  const AttentionArgs& host_;
  int device_;
  AttentionArgs args_;
  struct Block {
    TensorView host;   // where it came from
    std::byte* begin;  // of its bytes there
    cuda::DeviceBuffer memory;
  };
  std::vector<Block> blocks_;
};

}  // namespace regard::emulator
