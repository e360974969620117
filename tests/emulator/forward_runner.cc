// Device memory lives as long as one call.
#include "tests/emulator/forward_runner.h"

#include <cstdlib>
#include <exception>

#include "regard/device.h"
#include "tests/emulator/device_case.h"
#include "tests/emulator/fake/control.h"
#include "tests/emulator/forward_cases.h"

namespace regard::emulator {

std::string Outcome::Wrong() const {
  std::string wrong = error;
  for (const std::string& report : reports) wrong += (wrong.empty() ? "" : "; ") + report;
  return wrong;
}

Outcome RunOnDevice(const Problem& bounds, const AttentionArgs& host, int device) {
  const Selection selection = Select(bounds, DeviceCaps::Gpu(device));
  Outcome outcome;
  outcome.kernel = selection.kernel;
  const DeviceCase on_device(host, device);
  const Plan plan(bounds, selection);
  const cuda::DeviceBuffer workspace(device, plan.workspace_bytes());
  try {
    Launch(plan, on_device.args(), {workspace.data(), workspace.bytes()});
    CheckDevice({DeviceType::kCuda, device});
  } catch (const std::exception& e) {
    outcome.error = e.what();
  }
  outcome.reports = fake::TakeReports();
  on_device.CopyBack();
  return outcome;
}

void UseFakeDriver() {
  setenv("FAKE_CUDA_GPUS", kGpuList, 0);
  setenv("REGARD_LIBCUDA", REGARD_FAKE_LIBCUDA, 1);
  setenv("REGARD_NVRTC", REGARD_FAKE_NVRTC, 1);
  setenv("REGARD_CUDA_CACHE", REGARD_FAKE_CACHE, 1);
}

}  // namespace regard::emulator
