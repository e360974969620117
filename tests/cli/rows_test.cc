// Rows and goals: which goal holds, when it is reached, and that the suite `cpu` is well made.
#include "cli/rows.h"

#include <gtest/gtest.h>

#include <set>

#include "cli/suites.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

RowResult Measured(Figure figure, double value, std::optional<double> goal) {
  RowResult result;
  result.row.figure = figure;
  result.value = value;
  result.goal = goal;
  return result;
}

TEST(Goals, ThereIsOneForOneThreadAndOneForMore) {
  const Goals goals = {76, 91, false};
  EXPECT_EQ(GoalFor(goals, 1, std::nullopt), 76);
  EXPECT_EQ(GoalFor(goals, 2, std::nullopt), 91);
  EXPECT_EQ(GoalFor(goals, 64, 1.9), 91);
}

TEST(Goals, WhereMemoryScalesThoseOfOneThreadHoldForMore) {
  const Goals goals = {76, 91, true};
  EXPECT_EQ(GoalFor(goals, 2, 1.61), 76);
  EXPECT_EQ(GoalFor(goals, 2, 1.6), 91);
  EXPECT_EQ(GoalFor(goals, 2, std::nullopt), 91);
  EXPECT_EQ(GoalFor(goals, 1, 1.61), 76);
}

TEST(Goals, ARowMayHaveNoneForSomeThreads) {
  EXPECT_FALSE(GoalFor({std::nullopt, 1.6}, 1, std::nullopt).has_value());
  EXPECT_TRUE(Measured(Figure::kSpeed, 0.1, std::nullopt).reached());
}

TEST(Goals, RoofAndSpeedAreAtLeastTheOthersAtMost) {
  EXPECT_TRUE(Measured(Figure::kRoof, 91, 91).reached());
  EXPECT_FALSE(Measured(Figure::kRoof, 90.9, 91).reached());
  EXPECT_FALSE(Measured(Figure::kSpeed, 1.5, 1.6).reached());
  for (const Figure figure :
       {Figure::kTime, Figure::kTimePerPair, Figure::kParts, Figure::kOverhead, Figure::kWorkspace}) {
    EXPECT_TRUE(Measured(figure, 1.03, 1.03).reached()) << NameOf(figure);
    EXPECT_FALSE(Measured(figure, 1.04, 1.03).reached()) << NameOf(figure);
  }
}

TEST(Goals, AreWrittenWithTheirSignAndUnit) {
  EXPECT_EQ(GoalText(Figure::kRoof, 0.95 * 91), ">= 86.45 %");
  EXPECT_EQ(GoalText(Figure::kTime, 1.03), "<= x 1.03");
  EXPECT_EQ(GoalText(Figure::kOverhead, 2), "<= 2 us");
  EXPECT_EQ(ValueText(Figure::kSpeed, 1.6543), "x 1.654");
}

TEST(Workspace, AllowsAMegabyteAndAHalfAThreadAndThePackedHeadsInFlight) {
  const Problem p = ParseProblem("prefill b=1 sq=1000 skv=1000 hq=8 hkv=2 d=64 dtype=bf16");
  EXPECT_EQ(AllowedWorkspace(p, "cpu.avx512_bf16.prefill.bf16", 1), 1.5e6 + 1000 * 128 * 2);
  EXPECT_EQ(AllowedWorkspace(p, "cpu.avx2.prefill.bf16", 1), 1.5e6 + 1000 * 128 * 4);
  EXPECT_EQ(AllowedWorkspace(p, "cpu.avx2.prefill.bf16", 8), 8 * 1.5e6 + 2 * 1000 * 128 * 4) << "only 2 heads";
}

TEST(Suites, RowsAreFoundByAPartOfTheirNameOrCase) {
  const std::vector<Row> rows = CpuRows();
  for (const Row& row : RowsMatching(rows, "b=8")) EXPECT_NE(row.text.find("b=8"), std::string::npos) << row.name;
  EXPECT_EQ(RowsMatching(rows, rows.front().name).size(), 1u);
  EXPECT_EQ(RowsMatching(rows, "").size(), rows.size());
  EXPECT_THROW(RowsMatching(rows, "no such row"), Error);
}

TEST(Suites, EveryRowOfTheCpuSuiteIsLegalAndHasItsOwnName) {
  std::set<std::string> names;
  for (const Row& row : CpuRows()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_NO_THROW(Validate(ParseProblem(row.text))) << row.name;
    const bool ratio =
        row.figure == Figure::kTime || row.figure == Figure::kTimePerPair || row.figure == Figure::kSpeed;
    EXPECT_EQ(!row.other.empty(), ratio) << row.name;
    if (ratio) {
      EXPECT_NO_THROW(Validate(ParseProblem(row.other))) << row.name;
      EXPECT_NE(row.other, row.text);
    }
    EXPECT_TRUE(row.goals.more.has_value()) << row.name;
  }
}

TEST(Suites, NamesAreKnown) {
  EXPECT_FALSE(FindSuite("cpu").rows.empty());
  EXPECT_FALSE(FindSuite("core").cases.empty());
  EXPECT_THROW(FindSuite("cpus"), Error);
}

}  // namespace
}  // namespace regard::cli
