// The text form of problems: defaults, errors, and the round trip over random text and random problems.
#include <gtest/gtest.h>

#include <bit>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <unordered_set>

#include "regard/problem.h"
#include "regard/status.h"

namespace regard {
namespace {

using Rng = std::mt19937_64;

std::int64_t Below(Rng& rng, std::int64_t n) {
  return static_cast<std::int64_t>(rng() % static_cast<std::uint64_t>(n));
}
bool Coin(Rng& rng) { return (rng() & 1) != 0; }

Error ErrorOf(const std::string& text) {
  try {
    ParseProblem(text);
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error for: " << text;
  return Error("", "", "");
}

bool Contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

// A case that uses every word.
const char* const kEveryWord =
    "mixed b=4 sq=64 skv=4096 hq=32 hkv=8 d=128 dv=64 dtype=bf16 kv=f8e4m3 out=f32 page=16 layout=HND table=csr "
    "order=bhsd placement=random varlen lens=1024*2,4096*2 qlens=uniform(1,64) seed=7 qscale=4 causal window=1023,0 "
    "chunk=8192 softcap=30 scale=0.125 alibi bias mask=0.25 sink leftpad qv qoffset dropout=0.5 append=1 rotary=half "
    "lse invariance=batch scoremod maskmod";

TEST(ProblemText, EveryWordReachesItsField) {
  const Problem p = ParseProblem(kEveryWord);
  EXPECT_EQ(p.phase, Phase::kMixed);
  EXPECT_EQ(p.batch, 4);
  EXPECT_EQ(p.seq_q, 64);
  EXPECT_EQ(p.seq_kv, 4096);
  EXPECT_EQ(p.heads_q, 32);
  EXPECT_EQ(p.heads_kv, 8);
  EXPECT_EQ(p.head_dim, 128);
  EXPECT_EQ(p.head_dim_v, 64);
  EXPECT_EQ(p.dtype, DType::kBF16);
  EXPECT_EQ(p.kv_dtype, DType::kF8E4M3);
  EXPECT_EQ(p.out_dtype, DType::kF32);
  EXPECT_EQ(p.page_size, 16);
  EXPECT_EQ(p.layout, KvLayout::kHND);
  EXPECT_EQ(p.table, TableKind::kCsr);
  EXPECT_EQ(p.order, DenseOrder::kBHSD);
  EXPECT_EQ(p.placement, Placement::kRandom);
  EXPECT_EQ(p.lens.runs, (std::vector<LengthSpec::Run>{{1024, 2}, {4096, 2}}));
  EXPECT_EQ(p.qlens.uniform_lo, 1);
  EXPECT_EQ(p.qlens.uniform_hi, 64);
  EXPECT_EQ(p.seed, 7u);
  EXPECT_EQ(p.qscale, 4);
  EXPECT_EQ(p.options.window_left, 1023);
  EXPECT_EQ(p.options.window_right, 0);
  EXPECT_EQ(p.options.chunk, 8192);
  EXPECT_EQ(p.options.softcap, 30);
  EXPECT_EQ(p.options.scale, 0.125);
  EXPECT_EQ(p.mask_density, 0.25);
  EXPECT_EQ(p.options.dropout, 0.5);
  EXPECT_EQ(p.append, 1);
  EXPECT_EQ(p.options.rotary, Rotary::kHalf);
  EXPECT_EQ(p.options.invariance, Invariance::kBatch);
  for (const bool flag : {p.varlen, p.options.causal, p.alibi, p.bias, p.mask, p.sink, p.leftpad, p.qv, p.q_offset,
                          p.lse, p.score_mod, p.mask_mod}) {
    EXPECT_TRUE(flag);
  }
  EXPECT_EQ(Print(p), kEveryWord);
}

TEST(ProblemText, TheWordsOfTheBackwardPassReachTheirFields) {
  const char* const text = "backward b=1 sq=4 skv=4 hq=2 hkv=2 d=64 dtype=bf16 bias sink grad=f32 dlse dbias dsink";
  const Problem p = ParseProblem(text);
  EXPECT_EQ(p.phase, Phase::kBackward);
  EXPECT_EQ(p.grad_dtype, DType::kF32);
  EXPECT_EQ(p.GradType(), DType::kF32);
  for (const bool flag : {p.dlse, p.dbias, p.dsink}) EXPECT_TRUE(flag);
  EXPECT_EQ(Print(p), text);
  EXPECT_EQ(ParseProblem("backward sq=4 dtype=f16").GradType(), DType::kF16);
}

TEST(ProblemText, ALoneWordLeavesDocumentedDefaults) {
  const Problem p = ParseProblem("sq=17");
  EXPECT_EQ(Print(p), "prefill b=1 sq=17 skv=17 hq=1 hkv=1 d=64 dtype=f32");
  EXPECT_EQ(p.head_dim_v, 64);
  EXPECT_EQ(p.kv_dtype, DType::kF32);
}

TEST(ProblemText, DefaultsFollowFromTheWordsGiven) {
  const char* const cases[][2] = {
      {"prefill", "prefill b=1 sq=1024 skv=1024 hq=1 hkv=1 d=64 dtype=f32"},
      {"decode", "decode b=1 sq=1 skv=1024 hq=1 hkv=1 d=64 dtype=f32"},
      {"decode skv=4096", "decode b=1 sq=1 skv=4096 hq=1 hkv=1 d=64 dtype=f32"},
      {"decode sq=4", "decode b=1 sq=4 skv=1024 hq=1 hkv=1 d=64 dtype=f32"},
      {"skv=33 hq=8", "prefill b=1 sq=33 skv=33 hq=8 hkv=8 d=64 dtype=f32"},
      {"backward sq=5 hkv=2", "backward b=1 sq=5 skv=5 hq=2 hkv=2 d=64 dtype=f32"},
      {"decode lens=10*3,700", "decode b=4 sq=1 skv=700 hq=1 hkv=1 d=64 dtype=f32 lens=10*3,700"},
      {"lens=uniform(17,8000) b=9", "prefill b=9 sq=8000 skv=8000 hq=1 hkv=1 d=64 dtype=f32 lens=uniform(17,8000)"},
      {"mixed qlens=64,1*2", "mixed b=3 sq=64 skv=64 hq=1 hkv=1 d=64 dtype=f32 qlens=64,1*2"},
      {"decode qlens=3,1", "decode b=2 sq=3 skv=1024 hq=1 hkv=1 d=64 dtype=f32 qlens=3,1"},
      {"sq=1 d=192 dtype=bf16 kv=bf16 dv=192", "prefill b=1 sq=1 skv=1 hq=1 hkv=1 d=192 dtype=bf16"},
      {"sq=1 dtype=f16 out=f16", "prefill b=1 sq=1 skv=1 hq=1 hkv=1 d=64 dtype=f16 out=f16"},
      {"sq=1 mask=0.1 seed=1 qscale=1 softcap=0", "prefill b=1 sq=1 skv=1 hq=1 hkv=1 d=64 dtype=f32 mask"},
      {"sq=1 mask=0", "prefill b=1 sq=1 skv=1 hq=1 hkv=1 d=64 dtype=f32 mask=0"},
      {"sq=1 window=,", "prefill b=1 sq=1 skv=1 hq=1 hkv=1 d=64 dtype=f32"},
      {"sq=1 window=,3", "prefill b=1 sq=1 skv=1 hq=1 hkv=1 d=64 dtype=f32 window=,3"},
      {"sq=1 window=3,", "prefill b=1 sq=1 skv=1 hq=1 hkv=1 d=64 dtype=f32 window=3,"},
      {"sq=1 append=0", "prefill b=1 sq=1 skv=1 hq=1 hkv=1 d=64 dtype=f32 append=0"},
      {"  causal\t\nsq=1  decode skv=2 ", "decode b=1 sq=1 skv=2 hq=1 hkv=1 d=64 dtype=f32 causal"},
  };
  for (const auto& [text, printed] : cases) EXPECT_EQ(Print(ParseProblem(text)), printed) << text;
}

TEST(ProblemText, DifferentLengthsDoNotMakeThePackedForm) { EXPECT_FALSE(ParseProblem("lens=10,20").varlen); }

TEST(ProblemText, AnUnknownWordIsNamedWithTheNearestKnownOne) {
  const Error error = ErrorOf("prefill sq=10 softcp=30");
  EXPECT_EQ(error.field(), "case");
  EXPECT_EQ(error.value(), "softcp");
  EXPECT_TRUE(Contains(error.expected(), "the nearest is softcap")) << error.what();
  EXPECT_TRUE(Contains(error.expected(), " invariance")) << "lists every word: " << error.what();
  EXPECT_TRUE(Contains(ErrorOf("prefil sq=10").expected(), "the nearest is prefill"));
}

TEST(ProblemText, AnUnknownWordIsShownOnOneShortLine) {
  const std::string what = ErrorOf("a\x01\x80" + std::string(5000, 'x')).what();
  EXPECT_LT(what.size(), 800u);
  for (const char c : what) EXPECT_TRUE(c >= ' ' && c <= '~');
}

TEST(ProblemText, BadValuesNameTheirWord) {
  const char* const cases[][2] = {
      {"sq=abc", "sq"},         {"sq=", "sq"},           {"sq", "sq"},
      {"sq=10x", "sq"},         {"sq=1.5", "sq"},        {"sq=+1", "sq"},
      {"skv=9223372036854775808", "skv"},                {"b=-9223372036854775809", "b"},
      {"seed=18446744073709551616", "seed"},             {"seed=-1", "seed"},
      {"scale=nan", "scale"},   {"scale=1e999", "scale"}, {"scale=0x10", "scale"},
      {"softcap=3,0", "softcap"}, {"dtype=bf17", "dtype"}, {"kv=fp8", "kv"},
      {"out=", "out"},          {"layout=nhd", "layout"}, {"table=list", "table"},
      {"rotary=full", "rotary"}, {"invariance=all", "invariance"},
      {"window=5", "window"},   {"window=-1,0", "window"}, {"window=0,-1", "window"},
      {"window=1,2,3", "window"}, {"window=", "window"}, {"mask=", "mask"},
      {"mask=x", "mask"},       {"causal=1", "causal"},  {"causal=", "causal"},
      {"lens=", "lens"},        {"lens=1,,2", "lens"},   {"lens=1,", "lens"},
      {"lens=3*", "lens"},      {"lens=3*2*2", "lens"},  {"qlens=uniform(1,2", "qlens"},
      {"qlens=uniform(1)", "qlens"}, {"lens=uniform(,2)", "lens"}, {"prefill=1", "case"},
      {"sq=1 sq=1", "case"},    {"causal causal", "case"}, {"prefill sq=1 decode", "case"},
      {"prefill prefill", "case"}, {"", "case"},         {" \t ", "case"},
      {"=3", "case"},           {"SQ=3", "case"},
  };
  for (const auto& [text, field] : cases) EXPECT_EQ(ErrorOf(text).field(), field) << text;
}

TEST(ProblemText, AMistypedNameGetsTheNearestOne) {
  EXPECT_TRUE(Contains(ErrorOf("dtype=bf17").expected(), "the nearest is bf16"));
  EXPECT_TRUE(Contains(ErrorOf("rotary=interleave").expected(), "the nearest is interleaved"));
}

TEST(ProblemText, NumbersRoundTripExactly) {
  Rng rng(3);
  for (int n = 0; n < 5000; ++n) {
    Problem p = ParseProblem("sq=1");
    const double scale = std::bit_cast<double>(rng());
    p.options.scale = scale == scale ? scale : 0.1 + 0.2;
    const double read = *ParseProblem(Print(p)).options.scale;
    ASSERT_EQ(std::bit_cast<std::uint64_t>(read), std::bit_cast<std::uint64_t>(*p.options.scale)) << Print(p);
  }
  for (const double x : {0.0, -0.0, 5e-324, 1.7976931348623157e308, std::numeric_limits<double>::infinity()}) {
    Problem p = ParseProblem("sq=1");
    p.options.scale = x;
    EXPECT_EQ(ParseProblem(Print(p)), p) << Print(p);
  }
}

TEST(ProblemText, EqualProblemsHashAlikeAndOthersDiffer) {
  const Problem a = ParseProblem("sq=7 causal"), b = ParseProblem("prefill causal skv=7 sq=7");
  const Problem c = ParseProblem("sq=7");
  EXPECT_EQ(a, b);
  EXPECT_EQ(std::hash<Problem>{}(a), std::hash<Problem>{}(b));
  EXPECT_EQ((std::unordered_set<Problem>{a, b, c}).size(), 2u);
}

// Random problems, many of them illegal: any 64-bit count, any enumerator, any list.
std::int64_t AnyCount(Rng& rng) {
  constexpr std::int64_t kOdd[] = {0, 1, -1, 7, std::numeric_limits<std::int64_t>::max(),
                                   std::numeric_limits<std::int64_t>::min()};
  return Coin(rng) ? kOdd[Below(rng, std::size(kOdd))] : static_cast<std::int64_t>(rng());
}
double AnyDouble(Rng& rng) {
  const double x = Coin(rng) ? std::bit_cast<double>(rng()) : static_cast<double>(Below(rng, 1000)) / 8;
  return x == x ? x : 0.1;
}
LengthSpec AnyLengths(Rng& rng) {
  LengthSpec spec;
  if (Below(rng, 3) == 0) {
    spec.uniform_lo = AnyCount(rng);
    spec.uniform_hi = AnyCount(rng);
  } else {
    for (std::int64_t n = Below(rng, 5); n > 0; --n) spec.runs.push_back({AnyCount(rng), AnyCount(rng)});
  }
  return spec;
}
template <class Enum>
Enum AnyOf(Rng& rng, Enum last) {
  return static_cast<Enum>(Below(rng, static_cast<std::int64_t>(last) + 1));
}

Problem AnyProblem(Rng& rng) {
  Problem p;
  p.phase = AnyOf(rng, Phase::kBackward);
  for (std::int64_t* count : {&p.batch, &p.seq_q, &p.seq_kv, &p.heads_q, &p.heads_kv, &p.head_dim, &p.head_dim_v}) {
    *count = AnyCount(rng);
  }
  if (Coin(rng)) p.head_dim_v = p.head_dim;
  p.dtype = AnyOf(rng, DType::kBool);
  p.kv_dtype = Coin(rng) ? p.dtype : AnyOf(rng, DType::kBool);
  if (Coin(rng)) p.out_dtype = AnyOf(rng, DType::kBool);
  if (Coin(rng)) p.grad_dtype = AnyOf(rng, DType::kBool);
  if (Coin(rng)) p.page_size = AnyCount(rng);
  p.layout = AnyOf(rng, KvLayout::kHND);
  p.table = AnyOf(rng, TableKind::kCsr);
  p.order = AnyOf(rng, DenseOrder::kBHSD);
  p.placement = AnyOf(rng, Placement::kRandom);
  AttentionOptions& o = p.options;
  for (bool* flag : {&p.varlen, &o.causal, &p.alibi, &p.bias, &p.mask, &p.sink, &p.leftpad, &p.qv, &p.q_offset, &p.lse,
                     &p.score_mod, &p.mask_mod, &p.dlse, &p.dbias, &p.dsink}) {
    *flag = Coin(rng);
  }
  if (Coin(rng)) o.scale = AnyDouble(rng);
  if (Coin(rng)) o.window_left = Below(rng, std::numeric_limits<std::int64_t>::max());
  if (Coin(rng)) o.window_right = Below(rng, 10);
  if (Coin(rng)) o.chunk = AnyCount(rng);
  if (Coin(rng)) o.softcap = AnyDouble(rng);
  if (Coin(rng)) o.dropout = AnyDouble(rng);
  o.rotary = AnyOf(rng, Rotary::kHalf);
  o.invariance = AnyOf(rng, Invariance::kNone);
  if (Coin(rng)) p.append = AnyCount(rng);
  p.lens = AnyLengths(rng);
  p.qlens = AnyLengths(rng);
  p.seed = rng();
  if (Coin(rng)) p.qscale = AnyDouble(rng);
  if (p.mask) p.mask_density = Coin(rng) ? 0.1 : AnyDouble(rng);
  return p;
}

TEST(ProblemText, RandomProblemsRoundTrip) {
  Rng rng(1);
  for (int n = 0; n < 20000; ++n) {
    const Problem p = AnyProblem(rng);
    ASSERT_EQ(ParseProblem(Print(p)), p) << Print(p);
  }
}

// Parses, then round-trips; or throws Error. Anything else fails the test or crashes it. Returns whether it parsed.
bool ParsesOrThrows(const std::string& text) {
  Problem p;
  try {
    p = ParseProblem(text);
  } catch (const Error& error) {
    EXPECT_FALSE(error.field().empty()) << text;
    return false;
  }
  EXPECT_EQ(ParseProblem(Print(p)), p) << text;
  try {
    Validate(p);
  } catch (const Error& error) {
    EXPECT_FALSE(error.field().empty()) << text;
  }
  return true;
}

TEST(ProblemText, RandomBytesParseOrThrow) {
  Rng rng(2);
  for (int n = 0; n < 20000 && !testing::Test::HasFailure(); ++n) {
    std::string text(static_cast<std::size_t>(Below(rng, 40)), ' ');
    for (char& c : text) c = static_cast<char>(Coin(rng) ? rng() : " =,*()0123456789.-bdhkqsv"[Below(rng, 25)]);
    ParsesOrThrows(text);
  }
}

TEST(ProblemText, MutatedCasesParseOrThrow) {
  Rng rng(4);
  int parsed = 0;
  for (int n = 0; n < 20000 && !testing::Test::HasFailure(); ++n) {
    std::string text = Coin(rng) ? std::string(kEveryWord) : Print(AnyProblem(rng));
    for (std::int64_t edits = 1 + Below(rng, 3); edits > 0; --edits) {
      const auto at = static_cast<std::size_t>(Below(rng, static_cast<std::int64_t>(text.size())));
      const auto length = static_cast<std::size_t>(Below(rng, 6));
      switch (Below(rng, 4)) {
        case 0: text[at] = static_cast<char>(rng()); break;
        case 1: text.erase(at, length); break;
        case 2: text.insert(at, text.substr(text.size() / 2, length)); break;
        default: text[at] = static_cast<char>('0' + Below(rng, 10)); break;
      }
      if (text.empty()) text = "sq=1";
    }
    parsed += ParsesOrThrows(text);
  }
  EXPECT_GT(parsed, 500);
  EXPECT_LT(parsed, 19500);
}

}  // namespace
}  // namespace regard
