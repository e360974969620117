// Every kernel that this machine can run, on the quick grid of `regard check`, against the oracle and against each other.
// One test, so that a sanitizer build or an emulated CPU walks every kernel, layout and option in one go.
#include <gtest/gtest.h>

#include "src/backend/kernel_info.h"
#include "src/cases/check.h"
#include "src/cases/grid.h"

namespace regard {
namespace {

TEST(QuickGrid, EveryKernelKeepsTheAccuracyRuleAndEqualNumericsGiveEqualBits) {
  cases::CheckOptions options;
  options.cross = true;
  const cases::CheckReport report = cases::RunCheck(cases::Grid(cases::GridSize::kQuick), AllKernels(), options);
  for (const cases::Miss& miss : report.misses) {
    ADD_FAILURE() << miss.what << "\nREPRO: regard check \"" << miss.problem << "\" --kernel " << miss.kernel;
  }
  EXPECT_FALSE(report.interrupted);
  EXPECT_EQ(report.unable, 0);
  // The scalar kernels run everywhere; a machine with wider instructions runs each case several times.
  EXPECT_GE(report.runs, report.cases);
  EXPECT_GT(report.kernels.size(), 10u);
}

}  // namespace
}  // namespace regard
