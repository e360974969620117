// A call with tensors in host memory, run by a plan of any device: on a GPU its tensors are copied there, and what it
// writes comes back on request. On the CPU nothing is copied.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "regard/attention.h"
#include "src/backend/kernel_info.h"
#include "src/cases/buffer.h"

namespace regard::cases {

class CaseOnDevice {
 public:
  // Plan and the call's memory outlive it. Takes the workspace; copies every tensor there.
  CaseOnDevice(const Plan& plan, const BackwardArgs& call);
  ~CaseOnDevice();
  CaseOnDevice(const CaseOnDevice&) = delete;
  CaseOnDevice& operator=(const CaseOnDevice&) = delete;

  // Every tensor as it now is on the host.
  void CopyIn();
  // Launches once; on a GPU returns before it is done.
  void Launch() const;
  // Seconds of one launch, mean over so many in a row: on a GPU between two events of its stream.
  double Seconds(int launches) const;
  // Waits; throws Error{"cuda.tables"} where a kernel has met a bad entry; copies what the call writes to the host.
  void Finish() const;

  Workspace workspace() const;

 private:
  struct Gpu;
  const Plan& plan_;
  const BackwardArgs& call_;
  Buffer workspace_;          // CPU
  std::unique_ptr<Gpu> gpu_;  // null: CPU
};

// The device whose kernels a pattern names: "cuda" and "cuda...." the first GPU, anything else this machine's CPU.
// Throws Error{"device"} where there is no GPU.
const DeviceCaps& DeviceOfKernels(std::string_view pattern);
// The same for a row of the table; `cpu` for a row of the CPU. Null where this machine has no such device.
const DeviceCaps* DeviceOfKernel(const KernelInfo& kernel, const DeviceCaps& cpu);

}  // namespace regard::cases
