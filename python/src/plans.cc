// A ring of a few plans for each thread, looked up by comparing problems: that is cheaper than a hash of their text.
#include "python/src/plans.h"

#include <string>
#include <vector>

#include "src/core/env.h"

namespace regard::python {
namespace {

struct Entry {
  Problem problem;
  Device device;
  Executor* executor;
  std::string tune;  // REGARD_TUNE may change while the process runs
  std::shared_ptr<const Plan> plan;
};

constexpr std::size_t kMostPlans = 8;

}  // namespace

const DeviceCaps& CapsOf(Device device) {
  return device.type == DeviceType::kCuda ? DeviceCaps::Gpu(device.index) : DeviceCaps::Host();
}

std::shared_ptr<const Plan> PlanFor(const Problem& p, Device device, const std::optional<KernelChoice>& choice,
                                    Executor& executor) {
  const DeviceCaps& caps = CapsOf(device);
  if (choice) return std::make_shared<const Plan>(p, Select(p, caps, *choice), &executor);
  thread_local std::vector<Entry> entries;
  thread_local std::size_t next = 0;
  const std::string tune = TuneVariable();
  for (const Entry& e : entries) {
    if (e.device == device && e.problem == p && e.executor == &executor && e.tune == tune) return e.plan;
  }
  Entry made{p, device, &executor, tune, std::make_shared<const Plan>(p, Select(p, caps), &executor)};
  const std::shared_ptr<const Plan> plan = made.plan;
  if (entries.size() < kMostPlans) {
    entries.push_back(std::move(made));
  } else {
    entries[next] = std::move(made);
    next = (next + 1) % kMostPlans;
  }
  return plan;
}

}  // namespace regard::python
