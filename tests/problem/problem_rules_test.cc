// The rules on a problem alone: what is legal passes, every rule refuses by the word's name.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "regard/problem.h"
#include "regard/status.h"

namespace regard {
namespace {

Error ErrorOf(const Problem& p) {
  try {
    Validate(p);
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error for: " << Print(p);
  return Error("", "", "");
}

TEST(ProblemRules, LegalProblemsPass) {
  const char* const cases[] = {
      "prefill b=1 sq=4096 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 causal window=1023,0 softcap=30 page=16",
      "b=0", "sq=0 skv=5", "sq=5 skv=0", "sq=9 skv=3 causal", "d=1 dv=512", "d=512 dv=1", "hq=6 hkv=3",
      "sq=1 dtype=f16 kv=f8e5m2", "sq=1 dtype=f8e4m3 kv=f8e5m2", "sq=1 dtype=f8e4m3", "sq=1 dtype=bf16 out=f32",
      "sq=1 page=1 table=csr layout=HND placement=random", "sq=1 page=1000000", "sq=1 window=0,0", "sq=1 window=,0",
      "sq=1 window=9223372036854775807,9223372036854775807", "sq=1 chunk=1", "sq=1 scale=0", "sq=1 scale=-3",
      "sq=1 dropout=0", "sq=1 dropout=1", "decode skv=10 append=10 rotary=half", "decode skv=10 append=0",
      "lens=3,0 qlens=2,3 varlen", "b=3 lens=uniform(0,9)", "sq=4 mask=0", "sq=4 mask=1", "backward sq=4 causal",
      "mixed qlens=64,1*2 lens=64,900,1000 page=16", "sq=4 qscale=0", "sq=1 invariance=none", "decode sq=100",
      "sq=2 alibi bias sink leftpad qv qoffset lse scoremod maskmod",
      "backward sq=4 bias sink dlse dbias dsink varlen leftpad qoffset mask alibi dropout=1 softcap=3 chunk=4 window=3,",
      "backward sq=4 dtype=bf16 grad=f32 d=1 dv=512", "backward sq=4 dtype=f16 grad=f16 out=f32", "backward sq=0 skv=9",
  };
  for (const char* text : cases) EXPECT_NO_THROW(Validate(ParseProblem(text))) << text;
}

TEST(ProblemRules, EveryRuleRefusesByTheWordsName) {
  const char* const cases[][2] = {
      {"b=-1", "b"}, {"sq=-1 skv=1", "sq"}, {"skv=-1 sq=1", "skv"}, {"sq=1 hq=0", "hq"}, {"sq=1 hq=-4 hkv=2", "hq"},
      {"sq=1 hq=4 hkv=0", "hkv"}, {"sq=1 hq=7 hkv=2", "hq"}, {"sq=1 hq=2 hkv=4", "hq"}, {"sq=1 d=0", "d"},
      {"sq=1 d=513", "d"}, {"sq=1 dv=0", "dv"}, {"sq=1 dv=513", "dv"}, {"sq=1 dtype=i32", "dtype"},
      {"sq=1 dtype=u8", "dtype"}, {"sq=1 dtype=bool", "dtype"}, {"sq=1 kv=i32", "kv"}, {"sq=1 dtype=f32 kv=bf16", "kv"},
      {"sq=1 dtype=f8e4m3 kv=bf16", "kv"}, {"sq=1 out=f8e4m3", "out"}, {"sq=1 out=i32", "out"}, {"sq=1 page=0", "page"},
      {"sq=1 page=-16", "page"}, {"sq=1 table=csr", "table"}, {"sq=1 layout=HND", "layout"},
      {"sq=1 placement=random", "placement"}, {"sq=1 chunk=0", "chunk"}, {"sq=1 softcap=-1", "softcap"},
      {"sq=1 softcap=inf", "softcap"}, {"sq=1 scale=inf", "scale"}, {"sq=1 scale=-inf", "scale"},
      {"sq=1 dropout=-0.1", "dropout"}, {"sq=1 dropout=1.1", "dropout"}, {"sq=1 rotary=half", "rotary"},
      {"sq=1 append=-1", "append"}, {"decode skv=10 append=11", "append"}, {"b=3 lens=5*2", "lens"},
      {"b=3 qlens=5*4", "qlens"}, {"skv=4 lens=5", "lens"}, {"sq=4 qlens=5", "qlens"}, {"lens=5,-1", "lens"},
      {"b=1 lens=5*0,4", "lens"}, {"b=2 lens=5*-1,4*3", "lens"}, {"skv=9 lens=uniform(5,4)", "lens"},
      {"skv=9 lens=uniform(-1,4)", "lens"}, {"skv=3 lens=uniform(1,4)", "lens"},
      {"b=100000000 lens=uniform(1,4)", "b"}, {"sq=1 mask=1.5", "mask"}, {"sq=1 mask=-0.5", "mask"},
      {"sq=1 grad=f32", "grad"}, {"sq=1 dlse", "dlse"}, {"decode bias dbias", "dbias"}, {"mixed sink dsink", "dsink"},
      {"backward sq=4 dbias", "dbias"}, {"backward sq=4 dsink", "dsink"}, {"backward sq=4 grad=bf16", "grad"},
      {"backward sq=4 dtype=bf16 grad=f16", "grad"}, {"backward sq=4 dtype=f8e4m3", "dtype"},
      {"backward sq=4 dtype=bf16 kv=f8e5m2", "kv"}, {"backward sq=4 page=16", "page"},
      {"backward sq=4 append=2", "append"}, {"backward sq=4 append=2 rotary=half", "append"}, {"backward sq=4 qv", "qv"},
      {"backward sq=4 scoremod", "scoremod"}, {"backward sq=4 maskmod", "maskmod"},
      {"sq=1 qscale=-1", "qscale"}, {"sq=1 qscale=inf", "qscale"},
      {"sq=9223372036854775807 skv=1", "sq"}, {"sq=1 skv=4611686018427387904", "skv"},
      {"b=2147483648 sq=2147483648 skv=1 hq=8", "sq"}, {"b=9223372036854775807 sq=0 skv=0", "sq"},
      {"sq=1 page=9223372036854775807", "page"}, {"sq=1 hq=9223372036854775807 hkv=9223372036854775806", "hq"},
  };
  for (const auto& [text, field] : cases) EXPECT_EQ(ErrorOf(ParseProblem(text)).field(), field) << text;
}

TEST(ProblemRules, HeadsThatDoNotDivideNameTwoThatDo) {
  const Error error = ErrorOf(ParseProblem("prefill b=1 sq=10 skv=10 hq=7 hkv=2 d=64 dtype=bf16"));
  EXPECT_EQ(error.value(), "7 is not a multiple of hkv 2");
  EXPECT_EQ(error.expected(), "hq = n * hkv (for example hq=6 or hq=8)");
  EXPECT_EQ(ErrorOf(ParseProblem("sq=1 hq=2 hkv=4")).expected(), "hq = n * hkv (for example hq=4)");
}

TEST(ProblemRules, ValuesThatTextCannotSayAreRefusedToo) {
  const Problem legal = ParseProblem("sq=4");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Problem p = legal;
  p.options.window_left = -1;
  EXPECT_EQ(ErrorOf(p).field(), "window");
  p = legal;
  p.options.window_right = -1;
  EXPECT_EQ(ErrorOf(p).field(), "window");
  p = legal;
  p.mask_density = 0.5;
  EXPECT_EQ(ErrorOf(p).field(), "mask");
  p = legal;
  p.lens.uniform_hi = 3;
  EXPECT_EQ(ErrorOf(p).field(), "lens");
  p.lens.uniform_lo = 1;
  EXPECT_NO_THROW(Validate(p));
  p.lens.runs = {{4, 1}};
  EXPECT_EQ(ErrorOf(p).field(), "lens");
  p = legal;
  p.options.dropout = nan;
  EXPECT_EQ(ErrorOf(p).field(), "dropout");
  p = legal;
  p.options.scale = nan;
  EXPECT_EQ(ErrorOf(p).field(), "scale");
  p = legal;
  p.options.softcap = nan;
  EXPECT_EQ(ErrorOf(p).field(), "softcap");
  p = legal;
  p.mask = true;
  p.mask_density = nan;
  EXPECT_EQ(ErrorOf(p).field(), "mask");
}

TEST(ProblemRules, AnIntegerThatIsNoEnumeratorIsRefused) {
  Problem p = ParseProblem("sq=4");
  p.phase = static_cast<Phase>(9);
  EXPECT_EQ(ErrorOf(p).field(), "phase");
  p = ParseProblem("sq=4");
  p.dtype = static_cast<DType>(200);
  EXPECT_EQ(ErrorOf(p).field(), "dtype");
  p = ParseProblem("sq=4");
  p.options.invariance = static_cast<Invariance>(3);
  EXPECT_EQ(ErrorOf(p).field(), "invariance");
}

TEST(ProblemRules, ScaleDefaultsToTheRootOfTheWidthsMultiplied) {
  EXPECT_EQ(ParseProblem("sq=1 d=64").Scale(), 0.125);
  EXPECT_EQ(ParseProblem("sq=1 d=64 dv=192").Scale(), 0.125);
  EXPECT_EQ(ParseProblem("sq=1 d=64 dv=192 qv").Scale(), 0.0625);
  EXPECT_EQ(ParseProblem("sq=1 d=64 scale=0").Scale(), 0);
  EXPECT_EQ(ParseProblem("sq=1 d=64 scale=-2 qv").Scale(), -2);
}

}  // namespace
}  // namespace regard
