// Every option against numbers worked out by hand, and every pair of options against a second, naive implementation.
#include <gtest/gtest.h>

#include <functional>

#include "tests/reference/toy.h"

namespace regard::reference {
namespace {

using Index = std::int64_t;

// One option: how to ask for it, and what it does to a score or to the visibility of (b, h, i, j), p = i + q_offset.
struct Option {
  const char* name;
  int step;  // of the law; scores pass through the steps in order
  std::function<void(Toy&)> ask;
  std::function<double(const Toy&, double s, Index b, Index h, Index i, Index j, Index p)> score;
  std::function<bool(const Toy&, Index b, Index h, Index i, Index j, Index p)> visible;
};

double At(const TensorView& t, Index b, Index h, Index i, Index j) {
  return *t.At<float>(b, h, i, j);
}

std::vector<Option> Options() {
  std::vector<Option> options;
  options.push_back({"scale", 1, [](Toy& t) { t.p.options.scale = -0.3; },
                     [](const Toy&, double s, Index, Index, Index, Index, Index) { return s * -0.3 * std::sqrt(3.0); },
                     nullptr});
  options.push_back({"softcap", 2, [](Toy& t) { t.p.options.softcap = 0.8; },
                     [](const Toy&, double s, Index, Index, Index, Index, Index) { return 0.8 * std::tanh(s / 0.8); },
                     nullptr});
  options.push_back({"alibi", 3,
                     [](Toy& t) {
                       t.args.alibi_slopes = t.Random({2, 4});
                     },
                     [](const Toy& t, double s, Index b, Index h, Index, Index j, Index p) {
                       return s - *t.args.alibi_slopes->At<float>(b, h) * std::abs(static_cast<double>(p - j));
                     },
                     nullptr});
  options.push_back(
      {"bias", 3,
       [](Toy& t) {
         t.args.bias = t.Random({1, 4, 1, 6});
       },
       [](const Toy& t, double s, Index, Index h, Index, Index j, Index) { return s + At(*t.args.bias, 0, h, 0, j); },
       nullptr});
  options.push_back({"score_mod", 4,
                     [](Toy& t) {
                       t.args.score_mod.fn = [](const void*, float s, Index b, Index h, Index i, Index j) {
                         return 0.5f * s + static_cast<float>(b + 2 * h + 3 * i - j);
                       };
                     },
                     [](const Toy&, double s, Index b, Index h, Index i, Index j, Index) {
                       return 0.5 * s + static_cast<double>(b + 2 * h + 3 * i - j);
                     },
                     nullptr});
  options.push_back({"causal", 5, [](Toy& t) { t.p.options.causal = true; }, nullptr,
                     [](const Toy&, Index, Index, Index, Index j, Index p) { return j <= p; }});
  options.push_back({"window", 5, [](Toy& t) { t.p.options.window_left = 2, t.p.options.window_right = 1; }, nullptr,
                     [](const Toy&, Index, Index, Index, Index j, Index p) { return p - 2 <= j && j <= p + 1; }});
  options.push_back({"chunk", 5, [](Toy& t) { t.p.options.chunk = 3; }, nullptr,
                     [](const Toy& t, Index b, Index, Index, Index j, Index p) {
                       const Index o = t.sequences[b].leftpad;
                       const auto begin = o + static_cast<Index>(std::floor((p - o) / 3.0)) * 3;
                       return begin <= j && j < begin + 3;
                     }});
  options.push_back(
      {"mask", 5,
       [](Toy& t) {
         std::vector<std::uint8_t> bits(2 * 4 * 6);
         for (std::size_t n = 0; n < bits.size(); ++n) bits[n] = n % 5 != 0;
         t.args.mask = t.Bytes(bits, DType::kBool, {2, 1, 4, 6});
       },
       nullptr, [](const Toy&, Index b, Index, Index i, Index j, Index) { return ((b * 4 + i) * 6 + j) % 5 != 0; }});
  options.push_back(
      {"mask_mod", 5,
       [](Toy& t) {
         t.args.mask_mod.fn = [](const void*, Index b, Index h, Index i, Index j) { return (b + h + i + j) % 3 != 0; };
       },
       nullptr, [](const Toy&, Index b, Index h, Index i, Index j, Index) { return (b + h + i + j) % 3 != 0; }});
  options.push_back({"leftpad", 5, [](Toy& t) { t.sequences[1].leftpad = 2; }, nullptr,
                     [](const Toy& t, Index b, Index, Index, Index j, Index) { return j >= t.sequences[b].leftpad; }});
  options.push_back(
      {"q_offset", 0, [](Toy& t) { t.sequences[0].q_offset = -2, t.sequences[1].q_offset = 1; }, nullptr, nullptr});
  options.push_back({"sink", 6, [](Toy& t) { t.args.sink = t.Random({4}); }, nullptr, nullptr});
  return options;
}

// The formula with nothing clever: no maximum taken out, everything looked up element by element.
Result Naive(const Toy& t, std::vector<Option> options) {
  std::sort(options.begin(), options.end(), [](const Option& a, const Option& b) { return a.step < b.step; });
  const Problem& p = t.p;
  Result r;
  r.out.assign(p.batch * p.seq_q * p.heads_q * p.head_dim_v, 0);
  r.lse.assign(p.batch * p.heads_q * p.seq_q, -kInf);
  for (Index b = 0; b < p.batch; ++b)
    for (Index h = 0; h < p.heads_q; ++h)
      for (Index i = 0; i < p.seq_q; ++i) {
        const Index kv_head = h / (p.heads_q / p.heads_kv), position = i + t.sequences[b].q_offset;
        double* out = &r.out[((b * p.seq_q + i) * p.heads_q + h) * p.head_dim_v];
        double sum = t.args.sink ? std::exp(static_cast<double>(*t.args.sink->At<float>(h))) : 0;
        for (Index j = 0; j < p.seq_kv; ++j) {
          double s = 0;
          for (Index c = 0; c < p.head_dim; ++c) s += At(t.args.q, b, i, h, c) * At(t.args.k, b, j, kv_head, c);
          s /= std::sqrt(static_cast<double>(p.head_dim));
          bool visible = true;
          for (const Option& o : options) {
            if (o.score) s = o.score(t, s, b, h, i, j, position);
            if (o.visible) visible = visible && o.visible(t, b, h, i, j, position);
          }
          if (!visible) continue;
          sum += std::exp(s);
          for (Index c = 0; c < p.head_dim_v; ++c) out[c] += std::exp(s) * At(t.args.v, b, j, kv_head, c);
        }
        if (sum == 0) continue;
        for (Index c = 0; c < p.head_dim_v; ++c) out[c] /= sum;
        r.lse[(b * p.heads_q + h) * p.seq_q + i] = std::log(sum);
      }
  return r;
}

TEST(ReferenceOptions, EachAloneAndInPairsMatchesTheNaiveFormula) {
  const std::vector<Option> options = Options();
  for (std::size_t a = 0; a < options.size(); ++a) {
    for (std::size_t b = a; b < options.size(); ++b) {
      SCOPED_TRACE(std::string(options[a].name) + " + " + options[b].name);
      std::vector<Option> chosen = {options[a]};
      if (b != a) chosen.push_back(options[b]);
      Toy t(2, 4, 6, 4, 2, 3, 5);
      for (const Option& o : chosen) o.ask(t);
      // score_mod rounds its argument to f32; everything else is f64 on both sides.
      EXPECT_LT(Distance(t.Run(), Naive(t, chosen)), t.args.score_mod.fn ? 1e-5 : 1e-12);
    }
  }
}

TEST(ReferenceOptions, EachOptionChangesTheResult) {
  Toy plain(2, 4, 6, 4, 2, 3, 5);
  const Result before = plain.Run();
  for (const Option& o : Options()) {
    if (std::string(o.name) == "q_offset") continue;  // alone it moves nothing
    Toy t(2, 4, 6, 4, 2, 3, 5);
    o.ask(t);
    EXPECT_GT(Distance(t.Run(), before), 1e-3) << o.name;
  }
}

// q = (1), k = (0, log 2, log 4): weights 1 : 2 : 4 with scale 1. v = (7, 14, 28).
struct Hand : Toy {
  Hand() : Toy(1, 1, 3, 1, 1, 1, 1) {
    args.q = Floats({1}, {1, 1, 1, 1});
    args.k = Floats({0, std::log(2.0f), std::log(4.0f)}, {1, 3, 1, 1});
    args.v = Floats({7, 14, 28}, {1, 3, 1, 1});
    p.options.scale = 1;
  }
};

TEST(ReferenceByHand, PlainWeightsOneTwoFour) {
  Hand t;
  const Result r = t.Run();
  EXPECT_NEAR(r.out[0], (7 + 28 + 112) / 7.0, 1e-5);
  EXPECT_NEAR(r.lse[0], std::log(7.0), 1e-6);
}

TEST(ReferenceByHand, ZeroScaleIsTheMean) {
  Hand t;
  t.p.options.scale = 0;
  EXPECT_NEAR(t.Run().out[0], 49 / 3.0, 1e-12);
  EXPECT_NEAR(t.Run().lse[0], std::log(3.0), 1e-12);
}

TEST(ReferenceByHand, NegativeScaleReversesTheOrder) {
  Hand t;
  t.p.options.scale = -1;  // weights 1 : 1/2 : 1/4
  EXPECT_NEAR(t.Run().out[0], (7 + 7 + 7) / 1.75, 1e-5);
}

TEST(ReferenceByHand, DefaultScaleIsOneOverRootOfD) {
  Toy t(1, 1, 2, 1, 1, 4, 1);
  t.args.q = t.Floats({1, 1, 1, 1}, {1, 1, 1, 4});
  t.args.k = t.Floats({0, 0, 0, 0, 1, 1, 1, 1}, {1, 2, 1, 4});  // scores 0 and 4 / 2
  EXPECT_NEAR(t.Run().lse[0], std::log(1 + std::exp(2.0)), 1e-12);
}

TEST(ReferenceByHand, SinkTakesProbabilityAndGivesNoValue) {
  Hand t;
  t.args.sink = t.Floats({std::log(7.0f)}, {1});  // as much as all keys together
  EXPECT_NEAR(t.Run().out[0], 147 / 14.0, 1e-5);
  EXPECT_NEAR(t.Run().lse[0], std::log(14.0), 1e-6);
}

TEST(ReferenceByHand, SinkIsNeitherScaledNorCapped) {
  Hand t;
  t.p.options.scale = 0;
  t.p.options.softcap = 0.1;
  t.args.sink = t.Floats({std::log(5.0f)}, {1});
  EXPECT_NEAR(t.Run().lse[0], std::log(8.0), 1e-6);
}

TEST(ReferenceByHand, SinkAloneGivesZeroAndItsOwnLse) {
  Hand t;
  t.sequences[0].seq_kv = 0;
  t.args.sink = t.Floats({1.5f}, {1});
  EXPECT_EQ(t.Run().out[0], 0);
  EXPECT_EQ(t.Run().lse[0], 1.5);
}

TEST(ReferenceByHand, RowWithoutKeysGivesZeroAndMinusInfinity) {
  Hand t;
  t.sequences[0].seq_kv = 0;
  EXPECT_EQ(t.Run().out[0], 0);
  EXPECT_EQ(t.Run().lse[0], -kInf);
}

TEST(ReferenceByHand, AlibiPushesKeysAwayOnBothSides) {
  Hand t;
  t.p.options.scale = 0;
  t.sequences[0].q_offset = 1;  // distances 1, 0, 1
  t.args.alibi_slopes = t.Floats({std::log(2.0f)}, {1});
  EXPECT_NEAR(t.Run().out[0], (7 / 2.0 + 14 + 28 / 2.0) / 2, 1e-5);
}

TEST(ReferenceByHand, SoftcapBoundsScoresAndVanishesWhenLarge) {
  Hand t;
  t.p.options.scale = 1000;
  t.p.options.softcap = 1;  // scores 0, 1, 1
  EXPECT_NEAR(t.Run().lse[0], std::log(1 + 2 * std::exp(1.0)), 1e-12);
  Hand far;
  far.p.options.softcap = 1e6;
  EXPECT_NEAR(far.Run().lse[0], Hand().Run().lse[0], 1e-10);
}

TEST(ReferenceByHand, CausalPositionsEndTogether) {
  Toy t(1, 2, 4, 1, 1, 1, 1);
  t.p.options.causal = true;
  t.p.options.scale = 0;  // lse is the log of the number of visible keys
  EXPECT_NEAR(t.Run().lse[0], std::log(3.0), 1e-12);
  EXPECT_NEAR(t.Run().lse[1], std::log(4.0), 1e-12);
  Toy longer(1, 4, 2, 1, 1, 1, 1);
  longer.p.options.causal = true;
  longer.p.options.scale = 0;
  const Result r = longer.Run();
  EXPECT_EQ(r.lse[0], -kInf);
  EXPECT_EQ(r.out[1], 0);
  EXPECT_NEAR(r.lse[2], 0, 1e-12);
  EXPECT_NEAR(r.lse[3], std::log(2.0), 1e-12);
}

TEST(ReferenceByHand, ChunksFloorBelowZero) {
  Toy t(1, 3, 4, 1, 1, 1, 1);
  t.p.options.chunk = 2;
  t.p.options.scale = 0;
  t.sequences[0].q_offset = -1;  // p = -1, 0, 1: chunks [-2, 0), [0, 2), [0, 2)
  const Result r = t.Run();
  EXPECT_EQ(r.lse[0], -kInf);
  EXPECT_NEAR(r.lse[1], std::log(2.0), 1e-12);
  EXPECT_NEAR(r.lse[2], std::log(2.0), 1e-12);
}

TEST(ReferenceIdentity, WideWindowsAndChunksAreNone) {
  Toy t(2, 4, 6, 4, 2, 3, 5);
  const Result plain = t.Run();
  for (const Index wide : {Index{6}, std::numeric_limits<Index>::max()}) {
    t.p.options = {};
    t.p.options.window_left = t.p.options.window_right = wide;
    EXPECT_EQ(Distance(t.Run(), plain), 0);
    t.p.options = {};
    t.p.options.chunk = wide;
    EXPECT_EQ(Distance(t.Run(), plain), 0);
  }
}

TEST(ReferenceIdentity, WindowOfNoRightSideIsCausalOnTheRight) {
  Toy t(2, 4, 6, 4, 2, 3, 5);
  t.p.options.window_right = 0;
  const Result window = t.Run();
  t.p.options = {};
  t.p.options.causal = true;
  EXPECT_EQ(Distance(t.Run(), window), 0);
}

TEST(ReferenceIdentity, SecondQueryEqualsConcatenatedHeads) {
  const Index d = 3, dv = 5;
  Toy t(1, 2, 4, 2, 1, d, dv);
  t.args.qv = t.Random({1, 2, 2, dv});
  t.p.qv = true;
  Toy wide(1, 2, 4, 2, 1, d + dv, dv);
  for (Index i = 0; i < 2; ++i)
    for (Index h = 0; h < 2; ++h)
      for (Index c = 0; c < d + dv; ++c)
        *wide.args.q.At<float>(0, i, h, c) = c < d ? At(t.args.q, 0, i, h, c) : At(*t.args.qv, 0, i, h, c - d);
  for (Index j = 0; j < 4; ++j)
    for (Index c = 0; c < d + dv; ++c)
      *wide.args.k.At<float>(0, j, 0, c) = c < d ? At(t.args.k, 0, j, 0, c) : At(t.args.v, 0, j, 0, c - d);
  wide.args.v = t.args.v;
  EXPECT_LT(Distance(t.Run(), wide.Run()), 1e-13);
}

TEST(ReferenceRows, SampledRowsAreThoseOfTheWhole) {
  Toy t(2, 4, 6, 4, 2, 3, 5);
  t.p.options.causal = true;
  t.p.options.window_left = 1;
  t.args.bias = t.Floats({100}, {1, 1, 1, 1});
  for (const Rounding rounding : {Rounding::kExact, Rounding::kLowPrecision}) {
    const Result whole = t.Run(rounding);
    double out[2 * 5], lse[2], largest = -1;
    ForwardRows(t.p, t.args, t.sequences, 1, 3, 1, 3, rounding, out, lse, &largest);
    for (int n = 0; n < 2; ++n) {
      EXPECT_EQ(lse[n], whole.lse[(1 * 4 + 3) * 4 + 1 + n]);
      for (int c = 0; c < 5; ++c) EXPECT_EQ(out[n * 5 + c], whole.out[((1 * 4 + 1 + n) * 4 + 3) * 5 + c]);
    }
    EXPECT_GT(largest, 90);
    EXPECT_LT(largest, 110);
  }
}

}  // namespace
}  // namespace regard::reference
