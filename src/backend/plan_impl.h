// What a Plan holds.
#pragma once

#include "src/backend/kernel_info.h"

namespace regard {

struct Plan::Impl {
  Problem problem;
  Selection selection;
  KernelPlan kernel;
  Executor* executor = nullptr;
  Device device;        // whose memory a launch works on
  std::string refusal;  // why this machine may not launch it; "": it may
  std::size_t sequences_bytes = 0, scratch_bytes = 0, total_bytes = 0;
};

}  // namespace regard
