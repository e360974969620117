#include "src/backend/probe_devices.h"

namespace regard {

std::vector<DeviceCaps> ProbeDevices() {
  DeviceCaps cpu;
  cpu.isas = {Isa::kScalar, Isa::kNeon, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};
  return {cpu, DeviceCaps::Known("H100"), DeviceCaps::Known("T4")};
}

std::vector<DeviceCaps> DevicesHere() {
  std::vector<DeviceCaps> devices = {DeviceCaps::Host()};
  for (int index = 0; index < DeviceCaps::GpuCount(); ++index) devices.push_back(DeviceCaps::Gpu(index));
  return devices;
}

}  // namespace regard
