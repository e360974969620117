// The one-call API: what it derives, allocates, refuses and says.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/cases/cases.h"

namespace regard {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(Api, ProblemOfACallIsTheProblemThatMadeIt) {
  for (const char* text : {"prefill b=2 sq=40 skv=50 hq=6 hkv=2 d=24 dv=40 dtype=bf16 causal window=9,0 softcap=5 lse sink",
                           "decode b=3 sq=1 skv=70 hq=4 hkv=4 d=64 dtype=f16 page=16 alibi",
                           "decode b=3 sq=1 skv=70 hq=4 hkv=4 d=64 dtype=f16 page=16 layout=HND table=csr",
                           "mixed b=3 qlens=1,40,2 lens=70,40,2 varlen hq=4 hkv=2 d=64 dtype=f32 chunk=9 scale=0.5",
                           "decode b=2 sq=3 skv=70 append=3 rotary=half causal hq=4 hkv=2 d=64 dtype=bf16 kv=f8e4m3"}) {
    const Problem given = ParseProblem(text);
    const cases::Case c = cases::MakeCase(given);
    Problem p = ProblemOf(c.args(), given.options);
    EXPECT_EQ(p.phase, given.phase) << text;
    EXPECT_EQ(p.batch, given.batch) << text;
    EXPECT_EQ(p.seq_q, given.seq_q) << text;
    EXPECT_EQ(p.seq_kv, given.seq_kv) << text;
    EXPECT_EQ(p.heads_q, given.heads_q) << text;
    EXPECT_EQ(p.heads_kv, given.heads_kv) << text;
    EXPECT_EQ(p.head_dim, given.head_dim) << text;
    EXPECT_EQ(p.head_dim_v, given.head_dim_v) << text;
    EXPECT_EQ(p.dtype, given.dtype) << text;
    EXPECT_EQ(p.kv_dtype, given.kv_dtype) << text;
    EXPECT_EQ(p.page_size, given.page_size) << text;
    EXPECT_EQ(p.layout, given.layout) << text;
    EXPECT_EQ(p.table, given.table) << text;
    EXPECT_EQ(p.varlen, given.varlen) << text;
    EXPECT_EQ(p.append, given.append) << text;
    EXPECT_EQ(p.sink, given.sink) << text;
    EXPECT_EQ(p.alibi, given.alibi) << text;
    EXPECT_EQ(p.lse, given.lse) << text;
    EXPECT_EQ(p.options, given.options) << text;
  }
}

TEST(Api, AllocatesOutAndLseWhereAbsent) {
  cases::Case c = cases::MakeCase(ParseProblem("prefill b=2 sq=40 skv=50 hq=6 hkv=2 d=24 dv=40 dtype=bf16 causal lse"));
  AttentionArgs a = c.args();
  a.out = {};
  a.lse.reset();
  const AttentionOptions options = c.problem().options;
  const AttentionResult r = Attention(a, options, true);
  EXPECT_EQ(r.out.view().Describe(), c.args().out.Describe());
  EXPECT_EQ(r.lse.view().Describe(), c.args().lse->Describe());
  EXPECT_FALSE(r.selection.kernel.empty());
  const AttentionResult given = Attention(c.args(), options);
  EXPECT_FALSE(given.out.defined());
  EXPECT_EQ(std::memcmp(r.out.view().data, c.args().out.data, static_cast<std::size_t>(c.args().out.Elements()) * 2), 0);
  EXPECT_TRUE(cases::CheckAccuracy(c.problem(), c.args()).ok());
}

TEST(Api, EmptyBatchesAndLengthsAreLegal) {
  for (const char* text : {"prefill b=0 sq=40 skv=50", "prefill b=2 sq=0 skv=50", "prefill b=2 sq=20 skv=0 lse",
                           "decode b=2 sq=1 skv=0 lse sink", "decode b=3 sq=1 lens=0,5,0 page=4 lse"}) {
    cases::Case c = cases::MakeCase(ParseProblem(text));
    Attention(c.args(), c.problem().options);
    const cases::Accuracy accuracy = cases::CheckAccuracy(c.problem(), c.args());
    EXPECT_TRUE(accuracy.ok()) << text << " " << accuracy.where;
  }
}

TEST(Api, VarlenAndKvCacheCallsSayWhatTheyMiss) {
  cases::Case c = cases::MakeCase(ParseProblem("prefill sq=20 skv=20"));
  const auto field = [](auto call) {
    try {
      call();
    } catch (const Error& e) {
      return e.field();
    }
    return std::string("none");
  };
  EXPECT_EQ(field([&] { VarlenAttention(c.args()); }), "cu_seqlens_q");
  EXPECT_EQ(field([&] { WithKvCache(c.args()); }), "cache_seqlens");
  AttentionArgs bad = c.args();
  bad.q.rank = 2;
  EXPECT_EQ(field([&] { Attention(bad); }), "q");
  cases::Case append = cases::MakeCase(ParseProblem("decode sq=1 skv=20 append=1"));
  bad = append.args();
  bad.v_new.reset();
  EXPECT_EQ(field([&] { WithKvCache(bad, append.problem().options); }), "v_new");
}

TEST(Api, AnErrorLeavesTheCacheUntouched) {
  cases::Case c = cases::MakeCase(ParseProblem("decode b=2 sq=1 skv=20 append=1 hq=2 hkv=2 page=4"));
  std::vector<std::int32_t> lengths = {19, 99};  // the second does not fit
  AttentionArgs a = c.args();
  a.cache_seqlens = TensorView::Contiguous(lengths.data(), DType::kI32, {2});
  const std::uint64_t before = cases::Checksum(a.k);
  EXPECT_THROW(WithKvCache(a, c.problem().options), Error);
  EXPECT_EQ(before, cases::Checksum(a.k));
}

struct State {
  std::vector<float> o, l;
  TensorView O() { return TensorView::Contiguous(o.data(), DType::kF32, {1, 1, 2, 3}); }
  TensorView L() { return TensorView::Contiguous(l.data(), DType::kF32, {1, 2, 1}); }
};

TEST(MergeStates, WeighsByExponentials) {
  State a{{1, 2, 3, 4, 5, 6}, {0.5f, 1.0f}}, b{{-1, 0, 1, 2, 2, 2}, {1.5f, -2.0f}}, r{std::vector<float>(6), std::vector<float>(2)};
  MergeStates(a.O(), a.L(), b.O(), b.L(), r.O(), r.L());
  for (int h = 0; h < 2; ++h) {
    const double wa = std::exp(a.l[h]), wb = std::exp(b.l[h]);
    for (int c = 0; c < 3; ++c) EXPECT_NEAR(r.o[h * 3 + c], (wa * a.o[h * 3 + c] + wb * b.o[h * 3 + c]) / (wa + wb), 1e-6);
    EXPECT_NEAR(r.l[h], std::log(wa + wb), 1e-6);
  }
}

TEST(MergeStates, TheIdentityChangesNothingAndTwoOfThemStayOne) {
  State a{{1, 2, 3, 4, 5, 6}, {300.0f, -kInf}}, none{{0, 0, 0, 0, 0, 0}, {-kInf, -kInf}};
  MergeStates(a.O(), a.L(), none.O(), none.L(), a.O(), a.L());  // in place
  EXPECT_EQ(a.o[0], 1.0f);
  EXPECT_EQ(a.l[0], 300.0f);
  EXPECT_EQ(a.o[3], 0.0f);
  EXPECT_EQ(a.l[1], -kInf);
}

TEST(MergeStates, RefusesShapesTypesAndOverlap) {
  State a{{1, 2, 3, 4, 5, 6}, {0, 0}}, b = a, r = a;
  TensorView wrong = TensorView::Contiguous(b.o.data(), DType::kF32, {1, 1, 3, 2});
  EXPECT_THROW(MergeStates(a.O(), a.L(), wrong, b.L(), r.O(), r.L()), Error);
  EXPECT_THROW(MergeStates(a.O(), a.L(), b.O(), b.L(), b.O(), r.L()), Error);
  wrong = r.L();
  wrong.dtype = DType::kI32;
  EXPECT_THROW(MergeStates(a.O(), a.L(), b.O(), b.L(), r.O(), wrong), Error);
}

TEST(Explain, SaysWhatWasChosenAndWhyOthersWereNot) {
  const Problem p = ParseProblem("decode b=1 sq=1 skv=32768 hq=32 hkv=8 d=128 dtype=f32 page=1 softcap=30");
  DeviceCaps caps;
  caps.name = "a faked CPU";
  const Selection s = Select(p, caps);
  const Plan plan(p, s);
  const std::string text = ExplainText(p, caps, &plan, s);
  for (const char* part : {"1 x (1 query over 32768 keys)  heads 32/8  d 128  f32  page 1 NHD  softcap 30", "a faked CPU",
                           "chosen    cpu.scalar.decode.f32", "256 MiB to read", "32 splits of 1024 keys", "workspace",
                           "reference", "slower"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  const std::string json = ExplainJson(p, caps, &plan, s);
  EXPECT_NE(json.find("\"kernel\":\"cpu.scalar.decode.f32\""), std::string::npos) << json;
  EXPECT_NE(json.find("\"able\":true"), std::string::npos);
}

}  // namespace
}  // namespace regard
