// The device of a tensor, as selection knows it.
#pragma once

#include <string>

#include "regard/device.h"
#include "regard/status.h"
#include "regard/tensor.h"

namespace regard {

// Throws Error{"<name>.device"} for a device without kernels, Error{"device"} for a GPU that is not there.
inline const DeviceCaps& CapsOf(const char* name, const TensorView& view) {
  if (view.device.type == DeviceType::kCpu) return DeviceCaps::Host();
  if (view.device.type == DeviceType::kCuda) return DeviceCaps::Gpu(view.device.index);
  throw Error(std::string(name) + ".device", "opencl", "cpu or cuda");
}

}  // namespace regard
