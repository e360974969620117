// The oracle's gradients against central finite differences of the oracle's own forward pass, all in f64: out and lse
// enter unrounded, and inputs lie on a grid on which steps are exact, so that only the step's own error (its square)
// remains. Each option has a test; together they cover every input that has a gradient.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "tests/reference/toy.h"

namespace regard::reference {
namespace {

constexpr float kGrid = 1.0f / 256;
constexpr float kStep = 1.0f / 8192;
constexpr double kTolerance = 1e-6;  // step^2 / 6 times a third derivative of some tens

float* Data(const TensorView& t) { return static_cast<float*>(t.data); }

void OntoGrid(const TensorView& t) {
  for (std::int64_t n = 0; n < t.Elements(); ++n) Data(t)[n] = std::round(Data(t)[n] / kGrid) * kGrid;
}

// A toy with a loss: sum dout * out + sum dlse * lse.
class Loss {
 public:
  explicit Loss(Toy& toy, bool with_lse = true) : toy_(toy) {
    const TensorView& q = toy.args.q;
    const bool packed = q.rank == 3;
    const std::int64_t heads = toy.p.heads_q, dim_v = toy.p.head_dim_v;
    args_.dout = packed ? toy.Random({q.shape[0], heads, dim_v}) : toy.Random({q.shape[0], q.shape[1], heads, dim_v});
    if (with_lse) args_.dlse = packed ? toy.Random({heads, q.shape[0]}) : toy.Random({q.shape[0], heads, q.shape[1]});
    for (const TensorView& t : Inputs()) OntoGrid(t);
    toy.p.phase = Phase::kBackward;
  }

  double Value() const {
    const Result r = toy_.Run();
    double sum = 0;
    for (std::size_t n = 0; n < r.out.size(); ++n) sum += Data(args_.dout)[n] * r.out[n];
    for (std::size_t n = 0; n < r.lse.size() && args_.dlse; ++n) {
      if (std::isfinite(r.lse[n])) sum += Data(*args_.dlse)[n] * r.lse[n];
    }
    return sum;
  }
  Gradients Analytic(Rounding rounding = Rounding::kExact) {
    args_.forward = toy_.args;
    args_.dq = toy_.args.q;  // their types alone matter: results are returned
    args_.dk = toy_.args.k;
    args_.dv = toy_.args.v;
    args_.dbias = toy_.args.bias;
    args_.dsink = toy_.args.sink;
    return Backward(toy_.p, args_, toy_.sequences, toy_.Run(), rounding);
  }
  BackwardArgs& args() { return args_; }

  // Every element of every input against its difference quotient.
  void ExpectGradientsOfFiniteDifferences() {
    const Gradients g = Analytic();
    Expect("dq", toy_.args.q, g.dq);
    Expect("dk", toy_.args.k, g.dk);
    Expect("dv", toy_.args.v, g.dv);
    if (toy_.args.bias) Expect("dbias", *toy_.args.bias, g.dbias);
    if (toy_.args.sink) Expect("dsink", *toy_.args.sink, g.dsink);
  }

 private:
  std::vector<TensorView> Inputs() const {
    std::vector<TensorView> all = {toy_.args.q, toy_.args.k, toy_.args.v};
    if (toy_.args.bias) all.push_back(*toy_.args.bias);
    if (toy_.args.sink) all.push_back(*toy_.args.sink);
    return all;
  }
  void Expect(const char* name, const TensorView& input, const std::vector<double>& gradient) {
    ASSERT_EQ(gradient.size(), static_cast<std::size_t>(input.Elements())) << name;
    for (std::size_t n = 0; n < gradient.size(); ++n) {
      float& x = Data(input)[n];
      const float before = x;
      x = before + kStep;
      const double above = Value();
      x = before - kStep;
      const double below = Value();
      x = before;
      const double quotient = (above - below) / (2.0 * kStep);
      ASSERT_NEAR(gradient[n], quotient, kTolerance * std::max(1.0, std::abs(quotient))) << name << "[" << n << "]";
    }
  }

  Toy& toy_;
  BackwardArgs args_;
};

TEST(ReferenceBackward, PlainAttentionOfADenseBatch) {
  Toy toy(2, 3, 5, 2, 2, 4, 4);
  Loss(toy, false).ExpectGradientsOfFiniteDifferences();
}

TEST(ReferenceBackward, TheGradientOfTheLseArrivesToo) {
  Toy toy(1, 3, 5, 2, 2, 4, 4);
  Loss(toy).ExpectGradientsOfFiniteDifferences();
}

TEST(ReferenceBackward, TheLseAloneGivesNoGradientToV) {
  Toy toy(1, 3, 5, 1, 1, 4, 4);
  Loss loss(toy);
  for (std::int64_t n = 0; n < loss.args().dout.Elements(); ++n) Data(loss.args().dout)[n] = 0;
  const Gradients g = loss.Analytic();
  for (const double x : g.dv) EXPECT_EQ(x, 0);
  for (const double x : g.dq) EXPECT_NE(x, 0);
}

TEST(ReferenceBackward, GroupsOfQueryHeadsAddUpInTheirKvHead) {
  Toy toy(2, 3, 4, 6, 2, 5, 3);
  Loss(toy).ExpectGradientsOfFiniteDifferences();
  Toy mqa(1, 2, 3, 4, 1, 3, 3);
  Loss(mqa).ExpectGradientsOfFiniteDifferences();
}

TEST(ReferenceBackward, OddAndUnequalHeadDims) {
  for (const auto& [d, dv] : {std::pair{1, 1}, {7, 3}, {3, 9}, {1, 5}}) {
    Toy toy(1, 2, 4, 2, 1, d, dv);
    Loss(toy).ExpectGradientsOfFiniteDifferences();
  }
}

TEST(ReferenceBackward, CausalWithMoreAndWithFewerKeysThanQueries) {
  for (const auto& [sq, skv] : {std::pair{3, 6}, {4, 4}, {6, 3}, {1, 5}}) {
    Toy toy(1, sq, skv, 2, 1, 4, 4);
    toy.p.options.causal = true;
    Loss(toy).ExpectGradientsOfFiniteDifferences();
  }
}

TEST(ReferenceBackward, WindowsAndChunks) {
  Toy window(1, 6, 8, 2, 2, 4, 4);
  window.p.options.window_left = 2;
  window.p.options.window_right = 1;
  Loss(window).ExpectGradientsOfFiniteDifferences();
  Toy chunk(1, 6, 8, 2, 2, 4, 4);
  chunk.p.options.chunk = 3;
  Loss(chunk).ExpectGradientsOfFiniteDifferences();
}

TEST(ReferenceBackward, ScaleZeroNegativeAndLarge) {
  for (const double scale : {0.0, -0.5, 1.25}) {
    Toy toy(1, 3, 4, 2, 1, 4, 4);
    toy.p.options.scale = scale;
    Loss(toy).ExpectGradientsOfFiniteDifferences();
  }
}

TEST(ReferenceBackward, SoftcapComesBeforeBiasInTheChain) {
  Toy toy(1, 3, 4, 2, 1, 4, 4);
  toy.p.options.softcap = 1.5;
  toy.p.bias = true;
  toy.args.bias = toy.Random({1, 2, 3, 4});
  Loss(toy).ExpectGradientsOfFiniteDifferences();
}

TEST(ReferenceBackward, AlibiOfOneRowAndOfABatch) {
  Toy one(2, 3, 4, 2, 1, 4, 4);
  one.p.alibi = true;
  one.args.alibi_slopes = one.Floats({0.5f, 0.25f}, {2});
  Loss(one).ExpectGradientsOfFiniteDifferences();
  Toy batch(2, 3, 4, 2, 1, 4, 4);
  batch.p.alibi = true;
  batch.args.alibi_slopes = batch.Floats({0.5f, 0.25f, 0.125f, 1}, {2, 2});
  Loss(batch).ExpectGradientsOfFiniteDifferences();
}

TEST(ReferenceBackward, DbiasIsSummedOverWhateverIsBroadcast) {
  for (int full = 0; full < 16; ++full) {
    SCOPED_TRACE(full);
    Toy toy(2, 3, 4, 2, 1, 2, 2);
    toy.p.bias = true;
    toy.args.bias = toy.Random({full & 1 ? 2 : 1, full & 2 ? 2 : 1, full & 4 ? 3 : 1, full & 8 ? 4 : 1});
    Loss(toy).ExpectGradientsOfFiniteDifferences();
  }
}

TEST(ReferenceBackward, BiasOfMinusInfinityHidesAKeyAndHasNoGradient) {
  Toy toy(1, 2, 3, 1, 1, 2, 2);
  toy.p.bias = true;
  toy.args.bias = toy.Floats({0, -INFINITY, 0.5f, -INFINITY, -INFINITY, -INFINITY}, {1, 1, 2, 3});
  Data(toy.args.v)[2] = kNanF;  // of key 1, which nobody weighs
  const Gradients g = Loss(toy).Analytic();
  for (const auto* gradient : {&g.dq, &g.dk, &g.dv, &g.dbias}) {
    for (const double x : *gradient) EXPECT_TRUE(std::isfinite(x));
  }
  EXPECT_NE(g.dbias[0], 0);
  for (const std::size_t hidden : {1u, 3u, 4u, 5u}) EXPECT_EQ(g.dbias[hidden], 0);
  EXPECT_EQ(g.dq[2], 0);  // row 1 has no key left
}

TEST(ReferenceBackward, AMaskCutsPairsOut) {
  Toy toy(1, 3, 4, 2, 1, 4, 4);
  toy.p.mask = true;
  toy.args.mask = toy.Bytes({1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 1}, DType::kBool, {1, 1, 3, 4});
  Loss(toy).ExpectGradientsOfFiniteDifferences();
}

TEST(ReferenceBackward, ASinkTakesProbabilityAndHasAGradient) {
  Toy toy(2, 3, 4, 4, 2, 4, 4);
  toy.p.sink = true;
  toy.args.sink = toy.Random({4});
  Loss(toy).ExpectGradientsOfFiniteDifferences();
}

TEST(ReferenceBackward, ARowWithASinkAndNoKeyPassesItsLseGradientToTheSink) {
  Toy toy(1, 3, 1, 1, 1, 2, 2);  // causal: queries 0 and 1 see nothing
  toy.p.options.causal = true;
  toy.p.sink = true;
  toy.args.sink = toy.Random({1});
  Loss(toy).ExpectGradientsOfFiniteDifferences();
}

TEST(ReferenceBackward, LeftPaddingOffsetsAndUsedLengths) {
  Toy toy(3, 4, 6, 2, 1, 3, 3);
  toy.p.options.causal = true;
  toy.p.options.chunk = 4;
  toy.sequences[0].leftpad = 2;
  toy.sequences[0].q_offset = 1;
  toy.sequences[1].seq_q = 3;
  toy.sequences[1].seq_kv = 4;
  toy.sequences[1].q_offset = 1;
  toy.sequences[1].leftpad = 4;  // all of its keys
  toy.sequences[2].seq_q = 0;
  Loss(toy).ExpectGradientsOfFiniteDifferences();
}

TEST(ReferenceBackward, PackedSequencesOfUnequalLengths) {
  Toy toy(3, 1, 1, 4, 2, 3, 2);
  toy.p.varlen = true;
  toy.p.options.causal = true;
  toy.args.q = toy.Random({7, 4, 3});  // 3, 0 and 3 rows; one that nobody owns
  toy.args.k = toy.Random({10, 2, 3});
  toy.args.v = toy.Random({10, 2, 2});
  toy.args.cu_seqlens_q = toy.Ints({0, 3, 3, 6});
  toy.args.cu_seqlens_kv = toy.Ints({0, 4, 5, 9});
  const std::int64_t q_row[] = {0, 3, 3}, q_rows[] = {3, 0, 3}, kv_row[] = {0, 4, 5}, keys[] = {4, 1, 4};
  for (std::size_t b = 0; b < 3; ++b) {
    Sequence& s = toy.sequences[b];
    s.q_row = q_row[b], s.rows = s.seq_q = q_rows[b], s.kv_row = kv_row[b], s.seq_kv = keys[b];
    s.q_offset = s.seq_kv - s.seq_q;
  }
  Loss loss(toy);
  loss.ExpectGradientsOfFiniteDifferences();
  const Gradients g = loss.Analytic();
  for (std::size_t n = 6 * 4 * 3; n < g.dq.size(); ++n) EXPECT_EQ(g.dq[n], 0) << "a row that nobody owns";
  for (std::size_t n = 4 * 2 * 3; n < 5 * 2 * 3; ++n) EXPECT_EQ(g.dk[n], 0) << "a key that no query sees";
}

TEST(ReferenceBackward, DropoutIsReplayed) {
  for (const double p : {0.25, 0.6}) {
    Toy toy(2, 4, 5, 4, 2, 3, 3);
    toy.p.options.dropout = p;
    toy.args.dropout_seed = 0x123456789abcdefu;
    toy.args.dropout_offset = 0x500000007u;
    Loss(toy).ExpectGradientsOfFiniteDifferences();
  }
}

TEST(ReferenceBackward, WithEverythingDroppedOnlyTheLseHasGradients) {
  Toy toy(1, 3, 4, 1, 1, 3, 3);
  toy.p.options.dropout = 1;
  Loss without(toy, false);
  const Gradients g = without.Analytic();
  for (const auto* gradient : {&g.dq, &g.dk, &g.dv}) {
    for (const double x : *gradient) EXPECT_EQ(x, 0);
  }
  Loss(toy).ExpectGradientsOfFiniteDifferences();
}

TEST(ReferenceBackward, EveryOptionAtOnce) {
  Toy toy(2, 5, 7, 4, 2, 5, 3);
  toy.p.options.causal = true;
  toy.p.options.window_left = 4;
  toy.p.options.softcap = 3;
  toy.p.options.dropout = 0.3;
  toy.p.alibi = toy.p.bias = toy.p.mask = toy.p.sink = true;
  toy.args.alibi_slopes = toy.Floats({0.5f, 0.25f, 0.125f, 0.0625f}, {4});
  toy.args.bias = toy.Random({1, 4, 1, 7});
  toy.args.mask = toy.Bytes({1, 1, 0, 1, 1, 1, 0}, DType::kU8, {1, 1, 1, 7});
  toy.args.sink = toy.Random({4});
  toy.sequences[1].leftpad = 2;
  toy.sequences[0].seq_q = 4;
  Loss(toy).ExpectGradientsOfFiniteDifferences();
}

TEST(ReferenceBackward, EmptyBatchesQueriesAndKeysGiveZeros) {
  for (const auto& [b, sq, skv] : {std::array{0, 2, 2}, {1, 0, 3}, {1, 3, 0}}) {
    Toy toy(b, sq, skv, 2, 1, 3, 3);
    const Gradients g = Loss(toy).Analytic();
    EXPECT_EQ(g.dq.size(), static_cast<std::size_t>(b * sq * 2 * 3));
    EXPECT_EQ(g.dk.size(), static_cast<std::size_t>(b * skv * 3));
    for (const auto* gradient : {&g.dq, &g.dk, &g.dv}) {
      for (const double x : *gradient) EXPECT_EQ(x, 0);
    }
  }
}

TEST(ReferenceBackward, APartOfTheKeysWithTheStateOfAllGivesItsPartOfTheGradients) {
  // As a ring of machines does it: each holds some keys, and out and lse of all of them.
  Toy whole(1, 3, 6, 2, 1, 4, 4);
  Loss loss(whole, false);
  const Gradients expected = loss.Analytic();
  const Result forward = whole.Run();
  Gradients sum;
  sum.dq.assign(expected.dq.size(), 0.0);
  for (std::int64_t first = 0; first < 6; first += 2) {
    BackwardArgs part = loss.args();
    const auto keys = [&](const TensorView& t) {
      return TensorView::Contiguous(Data(t) + first * 4, DType::kF32, {1, 2, 1, 4});
    };
    part.forward.k = keys(whole.args.k);
    part.forward.v = keys(whole.args.v);
    std::vector<Sequence> sequences = whole.sequences;
    sequences[0].seq_kv = 2;
    const Gradients g = Backward(whole.p, part, sequences, forward);
    for (std::size_t n = 0; n < g.dq.size(); ++n) sum.dq[n] += g.dq[n];
    sum.dk.insert(sum.dk.end(), g.dk.begin(), g.dk.end());
    sum.dv.insert(sum.dv.end(), g.dv.begin(), g.dv.end());
  }
  EXPECT_LT(Distance(sum.dq, expected.dq), 1e-12);
  EXPECT_LT(Distance(sum.dk, expected.dk), 1e-12);
  EXPECT_LT(Distance(sum.dv, expected.dv), 1e-12);
}

TEST(ReferenceBackward, NanStaysWithThePairsThatSeeIt) {
  Toy toy(1, 3, 4, 2, 2, 4, 4);
  toy.p.mask = true;
  toy.args.mask = toy.Bytes({1, 1, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1}, DType::kBool, {1, 1, 3, 4});
  Loss loss(toy, false);
  const Gradients clean = loss.Analytic();
  *loss.args().dout.At<float>(0, 1, 0, 0) = kNanF;  // query 1 of head 0, which does not see key 1
  const Gradients g = loss.Analytic();
  for (std::size_t n = 0; n < g.dq.size(); ++n) {
    const bool hit = n / 8 == 1 && n / 4 % 2 == 0;  // [query][head][dim]
    EXPECT_EQ(std::isnan(g.dq[n]), hit) << n;
    if (!hit) {
      EXPECT_EQ(g.dq[n], clean.dq[n]) << n;
    }
  }
  for (std::size_t n = 0; n < g.dk.size(); ++n) {
    const bool hit = n / 8 != 1 && n / 4 % 2 == 0;  // [key][head][dim]
    EXPECT_EQ(std::isnan(g.dk[n]), hit) << n;
    if (!hit) {
      EXPECT_EQ(g.dk[n], clean.dk[n]) << n;
    }
    EXPECT_EQ(std::isnan(g.dv[n]), hit && n % 4 == 0) << n;
  }
}

TEST(ReferenceBackward, PaddingIsNotRead) {
  Toy toy(2, 3, 4, 2, 1, 3, 3);
  toy.sequences[0].seq_q = 2;
  toy.sequences[0].seq_kv = 3;
  toy.sequences[0].q_offset = 1;
  Loss loss(toy);
  Gradients clean = loss.Analytic();
  for (std::int64_t h = 0; h < 2; ++h) {
    *toy.args.q.At<float>(0, 2, h, 1) = kNanF;
    *loss.args().dout.At<float>(0, 2, h, 1) = kNanF;
    *loss.args().dlse->At<float>(0, h, 2) = kNanF;
  }
  *toy.args.k.At<float>(0, 3, 0, 0) = kNanF;
  *toy.args.v.At<float>(0, 3, 0, 0) = kNanF;
  const Gradients g = loss.Analytic();
  EXPECT_EQ(g.dq, clean.dq);
  EXPECT_EQ(g.dk, clean.dk);
  EXPECT_EQ(g.dv, clean.dv);
}

TEST(ReferenceBackward, LowPrecisionRoundsOnceAnOp) {
  Toy toy(1, 9, 12, 4, 2, 8, 8);
  toy.p.options.causal = true;
  for (TensorView* t : {&toy.args.q, &toy.args.k, &toy.args.v}) *t = toy.As(*t, DType::kBF16);
  toy.p.dtype = toy.p.kv_dtype = DType::kBF16;
  BackwardArgs args;
  args.forward = toy.args;
  args.dout = toy.Random({1, 9, 4, 8});
  toy.p.phase = Phase::kBackward;
  const Result forward = toy.Run();
  const Gradients exact = Backward(toy.p, args, toy.sequences, forward);
  const Gradients low = Backward(toy.p, args, toy.sequences, forward, Rounding::kLowPrecision);
  for (const auto& [a, b] : {std::pair{&exact.dq, &low.dq}, {&exact.dk, &low.dk}, {&exact.dv, &low.dv}}) {
    EXPECT_GT(Distance(*a, *b), 1e-4);
    EXPECT_LT(Distance(*a, *b), 0.1);
  }
  for (const double x : low.dq) EXPECT_EQ(x, BF16ToFloat(FloatToBF16(static_cast<float>(x)))) << "a bf16 number";
}

}  // namespace
}  // namespace regard::reference
