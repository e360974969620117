// Devices as selection knows them: of a tensor, and by name.
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

// "cpu", "cuda", "cuda:1", or the name of a known GPU, which is pretended. Throws Error{field} for anything else,
// Error{"device"} for a GPU of this machine that is not there.
DeviceCaps DeviceByName(const std::string& field, const std::string& name);

}  // namespace regard
