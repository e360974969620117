// Length lists: text, expansion, draws.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "regard/status.h"
#include "src/problem/lengths.h"

namespace regard {
namespace {

using Lengths = std::vector<std::int64_t>;

TEST(LengthSpec, RunsExpandInOrder) {
  const LengthSpec spec = ReadLengths("lens", "5*2,9,0*1");
  EXPECT_EQ(spec.Expand(4, 1, 0), (Lengths{5, 5, 9, 0}));
  EXPECT_EQ(spec.Max(), 9);
  EXPECT_EQ(spec.Min(), 0);
  EXPECT_EQ(CountOf(spec), 4);
  EXPECT_EQ(WriteLengths(spec), "5*2,9,0");
}

TEST(LengthSpec, AListOfTheWrongCountIsRefused) {
  for (const std::int64_t batch : {0, 3, 5}) {
    EXPECT_THROW(ReadLengths("lens", "5*2,9*2").Expand(batch, 1, 0), Error) << batch;
  }
  EXPECT_THROW(ReadLengths("lens", "5*-1,9*2").Expand(1, 1, 0), Error);
  EXPECT_THROW(ReadLengths("lens", "5*0").Expand(0, 1, 0), Error);
}

TEST(LengthSpec, HugeListsAreRefusedBeforeMemoryIsTaken) {
  EXPECT_THROW(ReadLengths("lens", "5*9223372036854775807").Expand(std::int64_t{1} << 62, 1, 0), Error);
  EXPECT_THROW(ReadLengths("lens", "uniform(1,2)").Expand(kMaxListedSequences + 1, 1, 0), Error);
  EXPECT_EQ(CountOf(ReadLengths("lens", "5*9223372036854775807,5*2")), std::numeric_limits<std::int64_t>::max());
}

TEST(LengthSpec, UniformDrawsCoverItsRangeAndNothingElse) {
  const LengthSpec spec = ReadLengths("lens", "uniform(17,26)");
  EXPECT_EQ(spec.Min(), 17);
  EXPECT_EQ(spec.Max(), 26);
  std::vector<int> hits(10);
  for (const std::int64_t length : spec.Expand(10000, 1, 0)) {
    ASSERT_GE(length, 17);
    ASSERT_LE(length, 26);
    ++hits[static_cast<std::size_t>(length - 17)];
  }
  for (const int hit : hits) EXPECT_NEAR(hit, 1000, 200);
}

TEST(LengthSpec, UniformDrawsDependOnSeedAndSaltAndNotOnTheBatch) {
  const LengthSpec spec = ReadLengths("lens", "uniform(0,1000000)");
  const Lengths lengths = spec.Expand(50, 7, 1);
  EXPECT_EQ(spec.Expand(50, 7, 1), lengths);
  EXPECT_NE(spec.Expand(50, 8, 1), lengths);
  EXPECT_NE(spec.Expand(50, 7, 2), lengths);
  const Lengths longer = spec.Expand(60, 7, 1);
  EXPECT_TRUE(std::equal(lengths.begin(), lengths.end(), longer.begin()));
}

TEST(LengthSpec, UniformTakesTheWidestRangeAndRefusesAnEmptyOne) {
  LengthSpec spec;
  spec.uniform_lo = std::numeric_limits<std::int64_t>::min();
  spec.uniform_hi = std::numeric_limits<std::int64_t>::max();
  const Lengths lengths = spec.Expand(100, 1, 0);
  EXPECT_TRUE(std::ranges::any_of(lengths, [](std::int64_t n) { return n < 0; }));
  EXPECT_TRUE(std::ranges::any_of(lengths, [](std::int64_t n) { return n > 0; }));
  EXPECT_THROW(ReadLengths("lens", "uniform(3,2)").Expand(1, 1, 0), Error);
}

TEST(LengthSpec, AnEmptyListHasNoLengths) {
  EXPECT_TRUE(LengthSpec{}.empty());
  EXPECT_EQ(LengthSpec{}.Max(), 0);
  EXPECT_EQ(LengthSpec{}.Min(), 0);
}

TEST(LengthSpec, SequencesWithoutAListAreAllAtTheLongest) {
  const Problem p = ParseProblem("decode b=3 sq=2 skv=40");
  EXPECT_EQ(QueryLengths(p), (Lengths{2, 2, 2}));
  EXPECT_EQ(KeyLengths(p), (Lengths{40, 40, 40}));
}

TEST(LengthSpec, QueryAndKeyLengthsOfOneSeedAreDrawnApart) {
  const Problem p = ParseProblem("b=40 sq=1000 skv=1000 lens=uniform(1,1000) qlens=uniform(1,1000)");
  EXPECT_NE(QueryLengths(p), KeyLengths(p));
}

}  // namespace
}  // namespace regard
