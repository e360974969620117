// REGARD_TUNE for the length of a scope, and cases run under it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/cases/cases.h"

namespace regard::testing {

class Tuned {
 public:
  explicit Tuned(const char* text) {
    if (const char* before = std::getenv("REGARD_TUNE")) before_ = before;
    setenv("REGARD_TUNE", text, 1);
  }
  ~Tuned() { before_ ? setenv("REGARD_TUNE", before_->c_str(), 1) : unsetenv("REGARD_TUNE"); }
  Tuned(const Tuned&) = delete;
  Tuned& operator=(const Tuned&) = delete;

 private:
  std::optional<std::string> before_;
};

// The bytes that the CPU kernel of `isa` gives the case under `tuning`. `check`: held to the accuracy rule.
inline std::vector<char> OutputUnder(const char* tuning, const std::string& problem, Isa isa, int threads,
                                     bool check = false) {
  const Tuned tuned(tuning);
  cases::Case c = cases::MakeCase(ParseProblem(problem));
  std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kStdThread, threads));
  CallControl control;
  control.choice = KernelChoice{{std::string("cpu.") + Name(isa)}, {}};
  control.executor = executor.get();
  Attention(c.args(), c.problem().options, c.problem().lse, control);
  if (check) {
    const cases::Accuracy accuracy = cases::CheckAccuracy(c.problem(), c.args(), 16);
    EXPECT_TRUE(accuracy.ok()) << tuning << " " << Name(isa) << " " << problem << " " << accuracy.where;
  }
  const TensorView& out = c.args().out;
  const auto* const bytes = static_cast<const char*>(out.data);
  return {bytes, bytes + static_cast<std::size_t>(out.Elements()) * SizeOf(out.dtype)};
}

}  // namespace regard::testing
