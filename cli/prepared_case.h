// A case ready to be launched again and again: inputs, selection, plan, workspace, and what one launch does.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "regard/attention.h"
#include "src/cases/cases.h"
#include "src/cases/on_device.h"
#include "src/cpu/probe/probe.h"

namespace regard::cli {

// What one launch does.
struct Work {
  double pairs = 0;                             // visible (query, key) pairs of all heads
  double flops = 0;                             // 2 * (D + Dv [+ Dv with qv]) a pair; backward 2 * (3 * D + 2 * Dv)
  double bytes = 0;                             // each visible K and V byte once
  double query_rows = 0, keys_per_row = 0;      // (i, h) pairs, and the longest row of keys
  std::vector<probe::Chunk> chunks;             // K and V in the order of the case
};

class PreparedCase {
 public:
  // Generates the inputs of `text`; `kernel` is a pattern, empty: what Select chooses for the CPU. `executor` outlives
  // the case. Throws Error for a bad case.
  PreparedCase(const std::string& text, const std::string& kernel, Executor& executor);
  // Sequence b of `whole` alone, over the same memory, with a selection and a plan of its own. `whole` is paged by a
  // block table and has no per-sequence options; throws Error{"case"} otherwise.
  PreparedCase(const PreparedCase& whole, std::int64_t b);
  PreparedCase(PreparedCase&&) noexcept = default;

  void Launch() const { run_->Launch(); }  // on a GPU: returns before it is done
  double Seconds(int launches) const { return run_->Seconds(launches); }  // of one launch, mean over so many in a row

  const std::string& text() const { return text_; }
  const Problem& problem() const { return problem_; }
  const AttentionArgs& args() const { return call_.forward; }
  const BackwardArgs& call() const { return call_; }
  const Plan& plan() const { return *plan_; }
  Workspace workspace() const { return run_->workspace(); }
  const Work& work() const { return work_; }
  std::int64_t sequences() const;

  void PoisonOutput();
  // Holds the output to the accuracy rule: all rows of a small case, else samples.
  cases::Accuracy Check() const;

 private:
  void MakePlan(const std::string& kernel, Executor& executor);

  std::shared_ptr<const cases::Case> memory_;  // of the tensors in call_; shared with parts
  std::string text_, kernel_;
  Problem problem_;
  BackwardArgs call_;  // only its forward call, unless the phase is backward
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<BackwardArgs> launched_;  // call_, at an address that does not move
  std::unique_ptr<cases::CaseOnDevice> run_;
  Work work_;
};

}  // namespace regard::cli
