// The backward kernels beyond the accuracy rule: the same bits with any number of threads and any division of the work,
// one rounding at the end, and NaN that stays in what it has to do with.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/cases/cases.h"

namespace regard {
namespace {

using cases::Case;
using cases::MakeCase;

std::vector<std::string> Isas() {
  std::vector<std::string> here;
  for (const Isa isa : DeviceCaps::Host().isas) here.push_back(std::string("cpu.") + Name(isa));
  return here;
}
bool Runs(const std::string& isa, DType t) { return isa != "cpu.avx512_bf16" || t == DType::kBF16; }

using Bytes = std::vector<std::byte>;
using Gradients = std::map<std::string, Bytes>;  // by name, rows in order

Bytes Contents(const TensorView& v) {
  Bytes bytes;
  const std::size_t size = SizeOf(v.dtype);
  const auto walk = [&](auto&& self, int d, const std::byte* at) -> void {
    if (d == v.rank) return bytes.insert(bytes.end(), at, at + size), void();
    const auto n = static_cast<std::size_t>(d);
    for (std::int64_t i = 0; i < v.shape[n]; ++i) self(self, d + 1, at + i * v.stride[n] * static_cast<std::int64_t>(size));
  };
  walk(walk, 0, static_cast<const std::byte*>(v.data));
  return bytes;
}

Gradients RunOn(const std::string& isa, int threads, Case& c) {
  cases::PoisonOutputs(c.problem(), c.call());
  const std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kStdThread, threads));
  CallControl control;
  control.choice = KernelChoice{{isa + ".backward"}, {}};
  control.executor = executor.get();
  AttentionBackward(c.call(), c.problem().options, control);
  const BackwardArgs& a = c.call();
  Gradients g{{"dq", Contents(a.dq)}, {"dk", Contents(a.dk)}, {"dv", Contents(a.dv)}};
  if (a.dbias) g["dbias"] = Contents(*a.dbias);
  if (a.dsink) g["dsink"] = Contents(*a.dsink);
  return g;
}

// out and lse as this instruction set's forward kernels leave them.
void Forward(const std::string& isa, Case& c) {
  cases::PoisonOutputs(c.args());
  CallControl control;
  control.choice = KernelChoice{{isa}, {}};
  Attention(c.args(), c.problem().options, true, control);
}

float ElementOf(const TensorView& v, std::int64_t b, std::int64_t s, std::int64_t h, std::int64_t c) {
  return LoadFloat(v.data, v.dtype, b * v.stride[0] + s * v.stride[1] + h * v.stride[2] + c * v.stride[3]);
}
void Put(const TensorView& v, float x, std::int64_t b, std::int64_t s, std::int64_t h, std::int64_t c) {
  StoreFloat(v.data, v.dtype, b * v.stride[0] + s * v.stride[1] + h * v.stride[2] + c * v.stride[3], x);
}

// Few heads, so that threads share a group, and more; every option with state of its own.
TEST(Backward, BitsAreThoseOfOneThreadHoweverTheWorkIsDivided) {
  const char* const problems[] = {
      "backward b=1 sq=129 skv=300 hq=4 hkv=1 d=64 causal lse",
      "backward b=2 sq=257 skv=257 hq=6 hkv=2 d=40 dv=72 window=50,3 softcap=20 dlse",
      "backward b=1 sq=140 skv=140 hq=5 hkv=1 d=32 causal dropout=0.2 sink dsink",
      "backward b=2 sq=130 skv=17 hq=3 hkv=3 d=17 alibi dlse",
      "backward lens=300,1,129 qlens=30,1,129 hq=8 hkv=2 d=64 causal varlen",
      "backward b=3 sq=33 skv=150 hq=4 hkv=2 d=24 bias dbias",
      "backward b=1 sq=600 skv=2100 hq=2 hkv=1 d=32 causal",
  };
  for (const std::string& isa : Isas()) {
    for (const DType t : {DType::kF32, DType::kBF16, DType::kF16}) {
      if (!Runs(isa, t)) continue;
      for (const char* words : problems) {
        SCOPED_TRACE(isa + " " + words + " " + std::string(Name(t)));
        Case c = MakeCase(ParseProblem(std::string(words) + " dtype=" + std::string(Name(t))));
        const Gradients one = RunOn(isa, 1, c);
        for (const int threads : {2, 3, 5, 1}) ASSERT_EQ(one, RunOn(isa, threads, c)) << threads << " threads";
      }
    }
  }
}

// f32 gradients and gradients in q's type come from the same sums.
TEST(Backward, GradientsInTheTypeOfQAreTheF32OnesRoundedOnce) {
  for (const std::string& isa : Isas()) {
    for (const DType t : {DType::kBF16, DType::kF16}) {
      if (!Runs(isa, t)) continue;
      SCOPED_TRACE(isa + " " + std::string(Name(t)));
      const std::string words = "backward b=2 sq=129 skv=200 hq=8 hkv=2 d=72 causal dtype=" + std::string(Name(t));
      Case wide = MakeCase(ParseProblem(words + " grad=f32")), own = MakeCase(ParseProblem(words));
      const Gradients f32 = RunOn(isa, 2, wide), rounded = RunOn(isa, 2, own);
      for (const auto& [name, bytes] : f32) {
        Bytes expected(bytes.size() / 2);
        for (std::size_t i = 0; i < bytes.size() / 4; ++i) {
          StoreFloat(expected.data(), t, static_cast<std::int64_t>(i),
                     LoadFloat(bytes.data(), DType::kF32, static_cast<std::int64_t>(i)));
        }
        EXPECT_EQ(expected, rounded.at(name)) << name;
      }
    }
  }
}

// What a NaN or an infinity in one element may reach, by the formulas: from a key, the rows that see it; from a row, the
// keys that it sees. Everything else keeps its bits.
TEST(Backward, ANonFiniteElementReachesOnlyWhatItHasToDoWith) {
  constexpr std::int64_t kQueries = 150, kKeys = 150, kWindow = 20, kAt = 70;
  const std::string words = "backward b=1 sq=150 skv=150 hq=4 hkv=2 d=40 causal window=20,0 dtype=";
  for (const std::string& isa : Isas()) {
    for (const DType t : {DType::kF32, DType::kBF16, DType::kF16}) {
      if (!Runs(isa, t)) continue;
      Case clean = MakeCase(ParseProblem(words + std::string(Name(t))));
      Forward(isa, clean);
      RunOn(isa, 1, clean);
      const float inf = std::numeric_limits<float>::infinity();
      for (const float bad : {std::nanf(""), inf, -inf}) {
        for (const std::string where : {"q", "k", "v", "dout"}) {
          SCOPED_TRACE(isa + " " + std::string(Name(t)) + " " + std::to_string(bad) + " in " + where);
          Case c = clean.Clone();
          BackwardArgs& a = c.call();
          const bool row = where == "q" || where == "dout";
          const TensorView& to = where == "q" ? a.forward.q : where == "k" ? a.forward.k : where == "v" ? a.forward.v : a.dout;
          Put(to, bad, 0, kAt, 1, 5);
          Forward(isa, c);
          RunOn(isa, 1, c);
          const BackwardArgs& was = clean.call();
          std::int64_t reached = 0;
          for (std::int64_t s = 0; s < kQueries; ++s) {
            for (std::int64_t h = 0; h < 4; ++h) {
              const bool may = row ? s == kAt && h == 1 : s >= kAt && s <= kAt + kWindow && h / 2 == 1;
              for (std::int64_t x = 0; x < 40; ++x) {
                const float got = ElementOf(a.dq, 0, s, h, x);
                reached += !std::isfinite(got);
                if (may) continue;
                ASSERT_EQ(got, ElementOf(was.dq, 0, s, h, x)) << "dq " << s << " " << h << " " << x;
              }
            }
          }
          for (std::int64_t s = 0; s < kKeys; ++s) {
            for (std::int64_t h = 0; h < 2; ++h) {
              // Keys that a row sees which the element reaches.
              const bool may = row ? h == 0 && s >= kAt - kWindow && s <= kAt
                                   : h == 1 && s >= kAt - kWindow && s <= kAt + kWindow;
              for (std::int64_t x = 0; x < 40; ++x) {
                const float dk = ElementOf(a.dk, 0, s, h, x), dv = ElementOf(a.dv, 0, s, h, x);
                reached += !std::isfinite(dk) + !std::isfinite(dv);
                if (may) continue;
                ASSERT_EQ(dk, ElementOf(was.dk, 0, s, h, x)) << "dk " << s << " " << h << " " << x;
                ASSERT_EQ(dv, ElementOf(was.dv, 0, s, h, x)) << "dv " << s << " " << h << " " << x;
              }
            }
          }
          EXPECT_GT(reached, 0);
        }
      }
    }
  }
}

TEST(Backward, NoQueriesOrNoKeysLeaveZeros) {
  for (const std::string& isa : Isas()) {
    for (const char* words : {"backward b=1 sq=0 skv=9 hq=2 hkv=1 d=16 dtype=bf16",
                              "backward b=1 sq=9 skv=0 hq=2 hkv=1 d=16 dtype=bf16",
                              "backward lens=0,5,0 qlens=3,0,0 hq=2 hkv=2 d=16 varlen dtype=bf16"}) {
      SCOPED_TRACE(isa + " " + words);
      Case c = MakeCase(ParseProblem(words));
      for (const auto& [name, bytes] : RunOn(isa, 2, c)) {
        for (const std::byte b : bytes) ASSERT_EQ(b, std::byte{0}) << name;
      }
    }
  }
}

}  // namespace
}  // namespace regard
