// NaN and infinity go exactly where they belong, masked values never arrive, and the caller's floating-point mode does
// not matter. On every instruction set this machine has.
#include <gtest/gtest.h>

#include <cfenv>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "regard/regard.h"
#include "tests/support/sequence_data.h"

namespace regard {
namespace {

using testing::Bits;
using testing::Collect;
using testing::SequenceData;
using testing::Shape;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

AttentionResult RunOn(const std::string& pattern, const AttentionArgs& a, const AttentionOptions& o) {
  CallControl control;
  control.choice = KernelChoice{{pattern}, {}};
  return Attention(a, o, true, control);
}

struct Target {
  std::string isa;
  DType type;
};
std::vector<Target> Targets() {
  std::vector<Target> all;
  for (Isa isa : DeviceCaps::Host().isas) {
    for (DType t : {DType::kF32, DType::kF16, DType::kBF16}) {
      if (isa == Isa::kAvx512Bf16 && t != DType::kBF16) continue;
      all.push_back({std::string("cpu.") + Name(isa), t});
    }
  }
  return all;
}

Shape CausalShape(DType t) {
  Shape s;
  s.dtype = s.kv_dtype = t;
  s.options.causal = true;
  return s;
}

float OutAt(const AttentionResult& r, std::int64_t i, std::int64_t h, std::int64_t c) {
  return LoadFloat(r.out.view().At(0, i, h, c), r.out.view().dtype, 0);
}

TEST(NonFinite, NanInAKeyReachesExactlyTheRowsThatSeeIt) {
  for (const Target& t : Targets()) {
    SCOPED_TRACE(t.isa + " " + std::string(Name(t.type)));
    SequenceData d(CausalShape(t.type), 5);
    const Shape& s = d.shape;
    const std::int64_t bad_row = 20, bad_key = s.seq_kv - s.seq_q + bad_row;  // seen by rows 20 and later
    const Bits clean = Collect(RunOn(t.isa, d.Dense(0, s.seq_q), s.options), d.Dense(0, s.seq_q).q, 0, 0, s.seq_q);
    for (std::int64_t h = 0; h < s.heads_kv; ++h) StoreFloat(d.k.bytes.data(), t.type, (bad_key * s.heads_kv + h) * s.head_dim + 3, kNan);
    const AttentionResult r = RunOn(t.isa, d.Dense(0, s.seq_q), s.options);
    for (std::int64_t i = 0; i < s.seq_q; ++i) {
      for (std::int64_t h = 0; h < s.heads_q; ++h) {
        EXPECT_EQ(std::isnan(*r.lse.view().At<float>(0, h, i)), i >= bad_row) << i;
        for (std::int64_t c = 0; c < s.head_dim_v; ++c) EXPECT_EQ(std::isnan(OutAt(r, i, h, c)), i >= bad_row) << i;
      }
    }
    const std::int64_t out_row = s.heads_q * s.head_dim_v * static_cast<std::int64_t>(SizeOf(t.type));
    const Bits now = Collect(r, d.Dense(0, s.seq_q).q, 0, 0, s.seq_q);
    EXPECT_EQ(clean.Rows(0, bad_row, out_row, 4 * s.heads_q), now.Rows(0, bad_row, out_row, 4 * s.heads_q));
  }
}

TEST(NonFinite, AMaskedValueNeverArrives) {
  for (const Target& t : Targets()) {
    for (const float bad : {kNan, kInf, -kInf}) {
      for (const auto& [n, dropout] : {std::pair{40, 0.0}, {4, 0.0}, {40, 0.5}, {4, 0.5}}) {  // prefill, decode
        SCOPED_TRACE(t.isa + " " + std::string(Name(t.type)) + " rows " + std::to_string(n));
        SequenceData d(CausalShape(t.type), 5);
        d.shape.options.dropout = dropout;  // a dropped key is still visible
        const Shape& s = d.shape;
        const std::int64_t first = s.seq_q - n, bad_row = s.seq_q - 2, bad_key = s.seq_kv - s.seq_q + bad_row;
        const AttentionArgs a = d.Dense(first, n);
        const Bits clean = Collect(RunOn(t.isa, a, s.options), a.q, 0, 0, n);
        for (std::int64_t h = 0; h < s.heads_kv; ++h) StoreFloat(d.v.bytes.data(), t.type, (bad_key * s.heads_kv + h) * s.head_dim_v + 1, bad);
        const AttentionResult r = RunOn(t.isa, a, s.options);
        const std::int64_t out_row = s.heads_q * s.head_dim_v * static_cast<std::int64_t>(SizeOf(t.type));
        const Bits now = Collect(r, a.q, 0, 0, n);
        EXPECT_EQ(clean.Rows(0, n - 2, out_row, 4 * s.heads_q), now.Rows(0, n - 2, out_row, 4 * s.heads_q));
        for (std::int64_t h = 0; h < s.heads_q; ++h) {
          EXPECT_FALSE(std::isfinite(OutAt(r, n - 1, h, 1)));
          EXPECT_TRUE(std::isfinite(OutAt(r, n - 1, h, 0)));
          EXPECT_TRUE(std::isfinite(*r.lse.view().At<float>(0, h, n - 1)));
        }
      }
    }
  }
}

// Each fp8 pattern of NaN and infinity, in decode: in k it makes the rows of its head NaN, in v its column non-finite.
TEST(NonFinite, EveryFp8PatternOfNanAndInfinityArrivesInDecode) {
  const std::vector<std::pair<DType, std::vector<int>>> patterns = {
      {DType::kF8E4M3, {0x7f, 0xff}}, {DType::kF8E5M2, {0x7c, 0x7d, 0x7e, 0x7f, 0xfc, 0xfd, 0xfe, 0xff}}};
  for (const Isa isa : DeviceCaps::Host().isas) {
    for (const auto& [type, bytes] : patterns) {
      for (const int byte : bytes) {
        SCOPED_TRACE(std::string(Name(isa)) + " " + std::string(Name(type)) + " " + std::to_string(byte));
        Shape s;
        s.dtype = DType::kBF16, s.kv_dtype = type;
        s.seq_q = 1, s.seq_kv = 200, s.heads_q = 8, s.heads_kv = 2, s.head_dim = s.head_dim_v = 128;
        const bool nan = std::isnan(LoadFloat(std::vector{std::byte(byte)}.data(), type, 0));
        const std::string kernels = std::string("cpu.") + Name(isa);
        SequenceData in_k(s, 5), in_v(s, 5);
        const std::int64_t at = (70 * s.heads_kv + 1) * 128 + 99;  // key 70, head 1, element 99
        *in_k.k.At(at) = *in_v.v.At(at) = std::byte(byte);
        const AttentionResult k = RunOn(kernels, in_k.Dense(0, 1), s.options);
        const AttentionResult v = RunOn(kernels, in_v.Dense(0, 1), s.options);
        for (std::int64_t h = 0; h < 8; ++h) {
          // An infinite score leaves NaN too, unless its sign makes it a weight of 0.
          if (nan || h < 4) {
            EXPECT_EQ(std::isnan(*k.lse.view().At<float>(0, h, 0)), h >= 4) << h;
          }
          for (std::int64_t c = 0; c < 128; ++c) {
            EXPECT_EQ(std::isfinite(OutAt(v, 0, h, c)), h < 4 || c != 99) << h << " " << c;
            if (nan && h >= 4 && c == 99) {
              EXPECT_TRUE(std::isnan(OutAt(v, 0, h, c)));
            }
          }
        }
      }
    }
  }
}

TEST(NonFinite, AMinusInfiniteBiasHidesAKeyAndAWholeRow) {
  for (const Target& t : Targets()) {
    SCOPED_TRACE(t.isa + " " + std::string(Name(t.type)));
    Shape s = CausalShape(t.type);
    s.bias = true;
    SequenceData d(s, 5);
    for (std::int64_t h = 0; h < s.heads_q; ++h) {
      for (std::int64_t j = 0; j < s.seq_kv; ++j) StoreFloat(d.bias.bytes.data(), DType::kF32, (h * s.seq_q + 7) * s.seq_kv + j, -kInf);
    }
    const AttentionResult r = RunOn(t.isa, d.Dense(0, s.seq_q), s.options);
    for (std::int64_t h = 0; h < s.heads_q; ++h) {
      EXPECT_EQ(*r.lse.view().At<float>(0, h, 7), -kInf);
      EXPECT_EQ(OutAt(r, 7, h, 0), 0.0f);
      EXPECT_TRUE(std::isfinite(OutAt(r, 8, h, 0)));
    }
  }
}

// The field's additive masks hold the lowest finite number: it must be added, not taken for -inf.
TEST(NonFinite, ARowOfLowestFiniteBiasIsAveraged) {
  for (const Target& t : Targets()) {
    SCOPED_TRACE(t.isa + " " + std::string(Name(t.type)));
    Shape s = CausalShape(t.type);
    s.options.causal = false;
    s.bias = true;
    SequenceData d(s, 5);
    for (std::int64_t h = 0; h < s.heads_q; ++h) {
      for (std::int64_t j = 0; j < s.seq_kv; ++j) {
        StoreFloat(d.bias.bytes.data(), DType::kF32, (h * s.seq_q + 7) * s.seq_kv + j, std::numeric_limits<float>::lowest());
      }
    }
    const AttentionResult r = RunOn(t.isa, d.Dense(0, s.seq_q), s.options);
    for (std::int64_t h = 0; h < s.heads_q; ++h) {
      double mean = 0;
      for (std::int64_t j = 0; j < s.seq_kv; ++j) {
        mean += LoadFloat(d.v.bytes.data(), t.type, (j * s.heads_kv + h / (s.heads_q / s.heads_kv)) * s.head_dim_v) / static_cast<double>(s.seq_kv);
      }
      EXPECT_NEAR(OutAt(r, 7, h, 0), mean, 1e-3);
    }
  }
}

TEST(FpMode, TheCallersRoundingAndFlushingDoNotMatter) {
  for (const Target& t : Targets()) {
    for (const std::int64_t n : {std::int64_t{40}, std::int64_t{1}}) {
      SCOPED_TRACE(t.isa + " " + std::string(Name(t.type)));
      SequenceData d(CausalShape(t.type), 5);
      const AttentionArgs a = d.Dense(d.shape.seq_q - n, n);
      const Bits plain = Collect(RunOn(t.isa, a, d.shape.options), a.q, 0, 0, n);
      std::fesetround(FE_UPWARD);
#if defined(__x86_64__)
      const unsigned saved = _mm_getcsr();
      _mm_setcsr(saved | 0x8040);  // FTZ and DAZ
#endif
      const AttentionResult r = RunOn(t.isa, a, d.shape.options);
#if defined(__x86_64__)
      EXPECT_EQ(_mm_getcsr() & 0xffc0u, (saved | 0x8040) & 0xffc0u);
      _mm_setcsr(saved);
#endif
      EXPECT_EQ(std::fegetround(), FE_UPWARD);
      std::fesetround(FE_TONEAREST);
      EXPECT_EQ(plain, Collect(r, a.q, 0, 0, n));
    }
  }
}

}  // namespace
}  // namespace regard
