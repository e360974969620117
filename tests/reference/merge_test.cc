// Merging of partial states.
#include <gtest/gtest.h>

#include "tests/reference/toy.h"

namespace regard::reference {
namespace {

using Index = std::int64_t;

Result Merged(const Result& a, const Result& b, Index dv) {
  Result r = a;
  Merge(a.out.data(), a.lse.data(), b.out.data(), b.lse.data(), static_cast<Index>(a.lse.size()), dv, r.out.data(),
        r.lse.data());
  return r;
}

// One head and one sequence, so that out and lse run over the same rows.
TEST(Merge, OfTheTwoHalvesIsTheWhole) {
  for (const bool sink : {false, true}) {
    Toy t(1, 4, 10, 1, 1, 3, 5);
    t.p.options.scale = 3;
    if (sink) t.args.sink = t.Floats({1.25f}, {1});
    const Result whole = t.Run();
    t.args.mask = t.Bytes({1, 1, 1, 1, 0, 0, 0, 0, 0, 0}, DType::kBool, {1, 1, 1, 10});
    const Result first = t.Run();
    t.args.sink.reset();  // it belongs to exactly one part
    t.args.mask = t.Bytes({0, 0, 0, 0, 1, 1, 1, 1, 1, 1}, DType::kBool, {1, 1, 1, 10});
    const Result second = t.Run();
    EXPECT_LT(Distance(Merged(first, second, 5), whole), 1e-12);
    EXPECT_EQ(Distance(Merged(second, first, 5), Merged(first, second, 5)), 0);
  }
}

TEST(Merge, WithTheIdentityChangesNothing) {
  Toy t(1, 4, 10, 1, 1, 3, 5);
  const Result whole = t.Run();
  t.sequences[0].seq_kv = 0;
  Result nothing = t.Run();
  EXPECT_EQ(Distance(Merged(whole, nothing, 5), whole), 0);
  EXPECT_EQ(Distance(Merged(nothing, whole, 5), whole), 0);
  EXPECT_EQ(Distance(Merged(nothing, nothing, 5), nothing), 0);
}

TEST(Merge, OfFarApartStatesKeepsTheGreater) {
  const double o_a = 3, l_a = 5000, o_b = 9, l_b = -5000;
  double o = 0, l = 0;
  Merge(&o_a, &l_a, &o_b, &l_b, 1, 1, &o, &l);
  EXPECT_EQ(o, 3);
  EXPECT_EQ(l, 5000);
}

TEST(Merge, KeepsNanOfEitherSide) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), one = 1, zero = 0;
  double o = 0, l = 0;
  Merge(&nan, &nan, &one, &zero, 1, 1, &o, &l);
  EXPECT_TRUE(std::isnan(o) && std::isnan(l));
  o = l = 0;
  Merge(&one, &zero, &nan, &nan, 1, 1, &o, &l);
  EXPECT_TRUE(std::isnan(o) && std::isnan(l));
}

}  // namespace
}  // namespace regard::reference
