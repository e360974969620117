// MergeStates against the formula, in every type and layout, and what it refuses.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "regard/regard.h"

namespace regard {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// One partial state of (B, S, H, Dv) or (T, H, Dv), values from a counter.
struct State {
  std::vector<float> raw;  // storage of o, whatever its type
  std::vector<float> lse;
  TensorView o, l;
  State(DType t, std::int64_t b, std::int64_t s, std::int64_t h, std::int64_t dv, bool packed, int seed)
      : raw(static_cast<std::size_t>(b * s * h * dv)), lse(static_cast<std::size_t>(b * s * h)) {
    o = packed ? TensorView::Contiguous(raw.data(), t, {b * s, h, dv}) : TensorView::Contiguous(raw.data(), t, {b, s, h, dv});
    l = packed ? TensorView::Contiguous(lse.data(), DType::kF32, {h, b * s})
               : TensorView::Contiguous(lse.data(), DType::kF32, {b, h, s});
    for (std::size_t n = 0; n < raw.size(); ++n) {
      StoreFloat(raw.data(), t, static_cast<std::int64_t>(n), std::sin(static_cast<float>(n * 7 + seed)));
    }
    for (std::size_t n = 0; n < lse.size(); ++n) lse[n] = 3 * std::cos(static_cast<float>(n * 5 + seed));
  }
  float O(std::int64_t n) const { return LoadFloat(raw.data(), o.dtype, n); }
};

TEST(MergeStates, FollowsTheFormulaInEveryTypeAndLayout) {
  constexpr std::int64_t kB = 2, kS = 5, kH = 3, kDv = 300;  // rows longer than one chunk of the loop
  for (const DType t : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const bool packed : {false, true}) {
      State a(t, kB, kS, kH, kDv, packed, 1), b(t, kB, kS, kH, kDv, packed, 2), r(t, kB, kS, kH, kDv, packed, 3);
      MergeStates(a.o, a.l, b.o, b.l, r.o, r.l);
      const double epsilon = t == DType::kF32 ? 1e-6 : t == DType::kF16 ? 6e-4 : 5e-3;
      for (std::int64_t row = 0; row < kB * kS; ++row) {
        for (std::int64_t h = 0; h < kH; ++h) {
          const std::int64_t n = packed ? h * kB * kS + row : ((row / kS) * kH + h) * kS + row % kS;
          const double la = a.lse[static_cast<std::size_t>(n)], lb = b.lse[static_cast<std::size_t>(n)];
          const double wa = std::exp(la) / (std::exp(la) + std::exp(lb));
          ASSERT_NEAR(r.lse[static_cast<std::size_t>(n)], std::log(std::exp(la) + std::exp(lb)), 1e-5);
          for (std::int64_t c = 0; c < kDv; ++c) {
            const std::int64_t at = (row * kH + h) * kDv + c;
            ASSERT_NEAR(r.O(at), wa * a.O(at) + (1 - wa) * b.O(at), epsilon) << Name(t) << " " << packed << " " << at;
          }
        }
      }
    }
  }
}

TEST(MergeStates, AnIdentityIsNotReadAndALostStateIs) {
  State a(DType::kF32, 1, 1, 1, 4, false, 1), b(DType::kF32, 1, 1, 1, 4, false, 2), r(DType::kF32, 1, 1, 1, 4, false, 3);
  a.raw[2] = kNaN;
  a.lse[0] = -kInf;
  MergeStates(a.o, a.l, b.o, b.l, r.o, r.l);
  EXPECT_EQ(r.raw, b.raw);
  EXPECT_EQ(r.lse, b.lse);
  b.lse[0] = -kInf;
  MergeStates(a.o, a.l, b.o, b.l, r.o, r.l);
  EXPECT_EQ(r.raw, std::vector<float>(4, 0.0f));
  EXPECT_EQ(r.lse[0], -kInf);
  a.lse[0] = -1000;  // a row that saw a NaN says so, however small its weight
  b.lse[0] = 0;
  MergeStates(a.o, a.l, b.o, b.l, r.o, r.l);
  EXPECT_TRUE(std::isnan(r.raw[2]));
  EXPECT_FALSE(std::isnan(r.raw[1]));
  b.lse[0] = kNaN;
  MergeStates(a.o, a.l, b.o, b.l, r.o, r.l);
  EXPECT_TRUE(std::isnan(r.raw[1]) && std::isnan(r.lse[0]));
}

TEST(MergeStates, HugeDifferencesOfLseDoNotOverflow) {
  State a(DType::kF32, 1, 2, 1, 4, false, 1), b(DType::kF32, 1, 2, 1, 4, false, 2);
  a.lse = {1e30f, 200};
  b.lse = {-1e30f, 200};
  const std::vector<float> before = a.raw;
  MergeStates(a.o, a.l, b.o, b.l, a.o, a.l);  // in place
  for (int c = 0; c < 4; ++c) EXPECT_EQ(a.raw[c], before[c]);
  EXPECT_EQ(a.lse[0], 1e30f);
  EXPECT_NEAR(a.lse[1], 200 + std::log(2.0), 1e-4);
}

TEST(MergeStates, EmptyTensorsAreLegal) {
  State a(DType::kF16, 0, 2, 1, 4, false, 1), b = a, r = a;
  MergeStates(a.o, a.l, b.o, b.l, r.o, r.l);
}

TEST(MergeStates, EveryRefusalNamesItsField) {
  const State a(DType::kF32, 1, 4, 2, 8, false, 1), b(DType::kF32, 1, 4, 2, 8, false, 2);
  State r(DType::kF32, 1, 4, 2, 8, false, 3);
  const std::vector<float> untouched = r.raw;
  const auto field = [](const TensorView& oa, const TensorView& la, const TensorView& ob, const TensorView& lb,
                        const TensorView& out, const TensorView& lse) {
    try {
      MergeStates(oa, la, ob, lb, out, lse);
    } catch (const Error& e) {
      return e.field();
    }
    return std::string("none");
  };
  TensorView t = a.o;
  t.rank = 77;
  EXPECT_EQ(field(t, a.l, b.o, b.l, r.o, r.l), "o_a");
  t = b.o;
  t.shape[3] = 7;
  EXPECT_EQ(field(a.o, a.l, t, b.l, r.o, r.l), "o_b");
  t = b.o;
  t.dtype = DType::kF8E4M3;
  EXPECT_EQ(field(a.o, a.l, t, b.l, r.o, r.l), "o_b");
  t = b.o;
  t.stride[0] = t.stride[1] = std::numeric_limits<std::int64_t>::max() / 2;
  EXPECT_EQ(field(a.o, a.l, t, b.l, r.o, r.l), "o_b");
  t = b.o;
  t.data = static_cast<char*>(t.data) + 1;
  EXPECT_EQ(field(a.o, a.l, t, b.l, r.o, r.l), "o_b");
  t = r.o;
  t.stride[1] = 0;
  EXPECT_EQ(field(a.o, a.l, b.o, b.l, t, r.l), "out");
  t = r.o;
  t.data = nullptr;
  EXPECT_EQ(field(a.o, a.l, b.o, b.l, t, r.l), "out");
  EXPECT_EQ(field(a.o, a.l, b.o, b.l, b.o, r.l), "out");
  t = a.o;
  t.data = static_cast<float*>(t.data) + 1;  // shifted by one element against o_a
  EXPECT_EQ(field(a.o, a.l, b.o, b.l, t, r.l), "out");
  t = r.l;
  t.shape[2] = 3;
  EXPECT_EQ(field(a.o, a.l, b.o, b.l, r.o, t), "lse_out");
  EXPECT_EQ(field(a.o, a.l, b.o, b.l, r.o, b.l), "lse_out");
  t = b.l;
  t.dtype = DType::kF16;
  EXPECT_EQ(field(a.o, a.l, b.o, t, r.o, r.l), "lse_b");
  t = a.l;
  t.device.type = DeviceType::kCuda;
  EXPECT_EQ(field(a.o, t, b.o, b.l, r.o, r.l), "lse_a");
  EXPECT_EQ(r.raw, untouched);
  EXPECT_EQ(field(a.o, a.l, b.o, b.l, r.o, r.l), "none");
}

}  // namespace
}  // namespace regard
