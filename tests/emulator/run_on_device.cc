// Device memory lives as long as one call; every tensor has an allocation of its own.
#include "tests/emulator/run_on_device.h"

#include <cstdlib>
#include <exception>

#include "regard/device.h"
#include "src/cases/on_device.h"
#include "tests/emulator/emulated_cases.h"
#include "tests/emulator/fake/control.h"

namespace regard::emulator {

std::string Outcome::Wrong() const {
  std::string wrong = error;
  for (const std::string& report : reports) wrong += (wrong.empty() ? "" : "; ") + report;
  return wrong;
}

Outcome RunOnDevice(const Problem& bounds, const BackwardArgs& call, int device, const std::string& row) {
  const DeviceCaps& caps = DeviceCaps::Gpu(device);
  const Selection selection = row.empty() ? Select(bounds, caps) : Select(bounds, caps, KernelChoice{{row}, {}});
  Outcome outcome;
  outcome.kernel = selection.kernel;
  const Plan plan(bounds, selection);
  const cases::CaseOnDevice run(plan, call);
  try {
    run.Launch();
    run.Finish();
  } catch (const std::exception& e) {
    outcome.error = e.what();
    run.Finish();  // the error is told once
  }
  outcome.reports = fake::TakeReports();
  return outcome;
}

void UseFakeDriver() {
  setenv("FAKE_CUDA_GPUS", kGpuList, 0);
  setenv("REGARD_LIBCUDA", REGARD_FAKE_LIBCUDA, 1);
  setenv("REGARD_NVRTC", REGARD_FAKE_NVRTC, 1);
  setenv("REGARD_CUDA_CACHE", REGARD_FAKE_CACHE, 1);
}

}  // namespace regard::emulator
