// Dropout in the CPU kernels: their Philox against the reference's on every instruction set, and that a launch drops
// exactly what DropoutMask says, whatever else it meets.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/cpu/params.h"
#include "src/reference/reference.h"
#include "tests/support/sequence_data.h"

namespace regard {
namespace {

using testing::Bits;
using testing::Buffer;
using testing::Collect;
using testing::SequenceData;
using testing::Shape;

struct Target {
  Isa isa;
  const cpu::ForwardKernels* kernels;
};
std::vector<Target> Targets() {
  const Target all[] = {
      {Isa::kScalar, &cpu::kScalarF32},
#if defined(__x86_64__)
      {Isa::kAvx2, &cpu::kAvx2F32},           {Isa::kAvx512, &cpu::kAvx512F32},
      {Isa::kAvx512Bf16, &cpu::kAvx512Bf16Pairs},
#elif defined(__aarch64__)
      {Isa::kNeon, &cpu::kNeonF32},
#endif
  };
  std::vector<Target> here;
  for (const Target& t : all) {
    if (DeviceCaps::Host().Has(t.isa)) here.push_back(t);
  }
  return here;
}
DType TypeOn(Isa isa) { return isa == Isa::kAvx512Bf16 ? DType::kBF16 : DType::kF32; }

AttentionResult RunOn(Isa isa, const AttentionArgs& a, const AttentionOptions& o) {
  CallControl control;
  control.choice = KernelChoice{{std::string("cpu.") + Name(isa)}, {}};
  return Attention(a, o, true, control);
}

TEST(DropFactors, AreThoseOfTheReferenceForAnyFirstKeyAndAnyNumber) {
  cpu::ForwardParams p{};
  p.drops = true;
  p.heads_q = 7;
  p.drop_scale = 1.25f;
  cpu::Seq s{};
  for (const Target& t : Targets()) {
    SCOPED_TRACE(Name(t.isa));
    std::uint64_t seed = 0x9e3779b97f4a7c15;
    for (const std::int64_t first : {0, 4, 12, 64, 1020, 123456 * 4, 2147483644}) {
      for (const int n : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 127, 512}) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        p.drop_seed = seed;
        p.drop_offset = n % 3 == 0 ? seed >> 40 : seed * 3;
        p.drop_threshold = n % 5 == 0 ? 0xfffffff0u : n % 5 == 1 ? 0 : static_cast<std::uint32_t>(seed >> 17);
        s.leftpad = n % 4;
        s.q_offset = n % 2 ? -5 : first + 77;  // negative positions wrap to 32 bits
        const std::int64_t b = n % 6, h = n % 7, i = 3;
        std::vector<float> got(static_cast<std::size_t>(n) + 1, -7.0f);
        t.kernels->drop_factors(p, s, b, h, i, first, n, got.data());
        for (int k = 0; k < n; ++k) {
          const auto key = static_cast<std::uint32_t>(first + k);
          const auto query = static_cast<std::uint32_t>(i + s.q_offset - s.leftpad);
          const std::uint32_t word =
              reference::Philox4x32(key / 4, query, static_cast<std::uint32_t>(b * 7 + h),
                                    static_cast<std::uint32_t>(p.drop_offset),
                                    p.drop_seed ^ (p.drop_offset & 0xffffffff00000000))
                  .v[key % 4];
          ASSERT_EQ(got[static_cast<std::size_t>(k)], word >= p.drop_threshold ? 1.25f : 0.0f)
              << "first " << first << " n " << n << " k " << k;
        }
        ASSERT_EQ(got[static_cast<std::size_t>(n)], -7.0f) << "written past n " << n;
      }
    }
  }
}

TEST(DropFactors, KeepTheirShareAndRowsHeadsAndOffsetsAreIndependent) {
  cpu::ForwardParams p{};
  p.drops = true;
  p.heads_q = 16;
  p.drop_scale = 1;
  const cpu::Seq s{};
  constexpr int kKeys = 512, kRows = 64;
  const cpu::ForwardKernels& kernels = *Targets().back().kernels;
  for (const double dropout : {0.1, 0.5, 0.9}) {
    p.drop_threshold = static_cast<std::uint32_t>(dropout * 4294967296.0);
    const auto row = [&](std::int64_t b, std::int64_t h, std::int64_t i, std::uint64_t offset) {
      p.drop_offset = offset;
      std::vector<float> factor(kKeys);
      kernels.drop_factors(p, s, b, h, i, 0, kKeys, factor.data());
      return factor;
    };
    double kept = 0, same_key = 0, same_row = 0, same_head = 0, same_batch = 0, same_offset = 0, same_high = 0;
    const auto agree = [](const std::vector<float>& a, const std::vector<float>& b) {
      double n = 0;
      for (int k = 0; k < kKeys; ++k) n += a[k] == b[k];
      return n;
    };
    for (int i = 0; i < kRows; ++i) {
      const std::vector<float> mine = row(1, 2, i, 9);
      for (int k = 0; k < kKeys; ++k) kept += mine[k];
      for (int k = 0; k < kKeys; ++k) same_key += mine[k] == mine[(k + 1) % kKeys];
      same_row += agree(mine, row(1, 2, i + kRows, 9));
      same_head += agree(mine, row(1, 3, i, 9));
      same_batch += agree(mine, row(2, 2, i, 9));
      same_offset += agree(mine, row(1, 2, i, 10));
      same_high += agree(mine, row(1, 2, i, 9 + (std::uint64_t{1} << 32)));
    }
    const double n = kKeys * kRows, alike = dropout * dropout + (1 - dropout) * (1 - dropout);
    EXPECT_NEAR(kept / n, 1 - dropout, 5 * std::sqrt(dropout * (1 - dropout) / n));
    for (const double same : {same_key, same_row, same_head, same_batch, same_offset, same_high}) {
      EXPECT_NEAR(same / n, alike, 5 * std::sqrt(alike * (1 - alike) / n));
    }
  }
}

// All scores 0, and column c of v is 1 for key first_key + c alone: out is row by row what meets v.
struct Window {
  static constexpr std::int64_t kKeys = 1300, kColumns = 400, kFirstKey = 700, kHeads = 3;
  SequenceData data;
  std::vector<std::int32_t> leftpad;
  static Shape ShapeOf(DType t, std::int64_t queries, double dropout) {
    Shape s;
    s.dtype = s.kv_dtype = t;
    s.seq_q = queries, s.seq_kv = kKeys, s.heads_q = kHeads, s.heads_kv = 1, s.head_dim = 8, s.head_dim_v = kColumns;
    s.options.scale = 0;
    s.options.causal = true;
    s.options.dropout = dropout;
    s.dropout_seed = 0xfeedfacecafebeef;
    s.dropout_offset = 0xdeadbeef80000001;
    return s;
  }
  Window(DType t, std::int64_t queries, double dropout, std::int32_t pad)
      : data(ShapeOf(t, queries, dropout), 3), leftpad{pad} {
    for (std::int64_t j = 0; j < kKeys; ++j) {
      for (std::int64_t c = 0; c < kColumns; ++c) {
        StoreFloat(data.v.bytes.data(), t, j * kColumns + c, j == kFirstKey + c ? 1.0f : 0.0f);
      }
    }
  }
  AttentionArgs Args() {
    AttentionArgs a = data.Dense(0, data.shape.seq_q);
    if (leftpad[0] > 0) a.leftpad = TensorView::Contiguous(leftpad.data(), DType::kI32, {1});
    return a;
  }
};

TEST(Dropout, AKernelDropsWhatDropoutMaskSaysAndScalesTheRest) {
  for (const Target& t : Targets()) {
    for (const std::int64_t queries : {1, 13, 50}) {  // decode, prefill
      for (const std::int32_t pad : {0, 5}) {
        for (const double dropout : {0.1, 0.75}) {
          SCOPED_TRACE(std::string(Name(t.isa)) + " rows " + std::to_string(queries) + " pad " + std::to_string(pad));
          Window w(TypeOn(t.isa), queries, dropout, pad);
          const AttentionArgs a = w.Args();
          const AttentionResult r = RunOn(t.isa, a, w.data.shape.options);
          const OwnedTensor mask = DropoutMask(a, w.data.shape.options);
          int dropped = 0;
          for (std::int64_t i = 0; i < queries; ++i) {
            const std::int64_t position = Window::kKeys - queries + i;
            for (std::int64_t h = 0; h < Window::kHeads; ++h) {
              for (std::int64_t c = 0; c < Window::kColumns; ++c) {
                const std::int64_t j = Window::kFirstKey + c;
                const float got = LoadFloat(r.out.view().At(0, i, h, c), r.out.view().dtype, 0);
                const bool kept = *mask.view().At<bool>(0, h, i, j);
                const double expected =
                    kept && j <= position ? 1 / (1 - dropout) / static_cast<double>(position + 1 - pad) : 0;
                ASSERT_NEAR(got, expected, expected * 0.02) << "i " << i << " h " << h << " j " << j;
                dropped += !kept;
              }
            }
          }
          EXPECT_GT(dropped, 0);
        }
      }
    }
  }
}

TEST(Dropout, LseHasTheBitsOfTheUndroppedCall) {
  for (const Target& t : Targets()) {
    for (const std::int64_t n : {std::int64_t{40}, std::int64_t{3}}) {
      Shape s;
      s.dtype = s.kv_dtype = TypeOn(t.isa);
      s.sink = s.alibi = true;
      s.options.dropout = 0.4;
      SequenceData d(s, 8);
      const AttentionArgs a = d.Dense(s.seq_q - n, n);
      const Bits dropped = Collect(RunOn(t.isa, a, s.options), a.q, 0, 0, n);
      AttentionOptions plain = s.options;
      plain.dropout = 0;
      const Bits whole = Collect(RunOn(t.isa, a, plain), a.q, 0, 0, n);
      EXPECT_EQ(dropped.lse, whole.lse) << Name(t.isa);
      EXPECT_NE(dropped.out, whole.out) << Name(t.isa);
    }
  }
}

TEST(Dropout, OneGivesPositiveZerosWhateverVHoldsAndTheUndroppedLse) {
  for (const Target& t : Targets()) {
    for (const std::int64_t n : {std::int64_t{40}, std::int64_t{1}}) {
      Shape s;
      s.dtype = s.kv_dtype = TypeOn(t.isa);
      s.options.dropout = 1;
      SequenceData d(s, 8);
      StoreFloat(d.v.bytes.data(), s.dtype, 5, std::numeric_limits<float>::quiet_NaN());
      StoreFloat(d.v.bytes.data(), s.dtype, 500, -std::numeric_limits<float>::infinity());
      const AttentionArgs a = d.Dense(s.seq_q - n, n);
      const Bits all = Collect(RunOn(t.isa, a, s.options), a.q, 0, 0, n);
      EXPECT_EQ(all.out, std::vector<std::byte>(all.out.size())) << Name(t.isa);
      AttentionOptions plain = s.options;
      plain.dropout = 0;
      EXPECT_EQ(all.lse, Collect(RunOn(t.isa, a, plain), a.q, 0, 0, n).lse) << Name(t.isa);
    }
  }
}

TEST(Dropout, OneKeepsTheNanOfANanScore) {
  for (const Target& t : Targets()) {
    Shape s;
    s.dtype = s.kv_dtype = TypeOn(t.isa);
    s.options.dropout = 1;
    SequenceData d(s, 8);
    StoreFloat(d.q.bytes.data(), s.dtype, 0, std::numeric_limits<float>::quiet_NaN());  // row 0, head 0
    const AttentionResult r = RunOn(t.isa, d.Dense(0, s.seq_q), s.options);
    EXPECT_TRUE(std::isnan(LoadFloat(r.out.view().At(0, 0, 0, 0), s.dtype, 0))) << Name(t.isa);
    EXPECT_TRUE(std::isnan(*r.lse.view().At<float>(0, 0, 0))) << Name(t.isa);
    EXPECT_EQ(LoadFloat(r.out.view().At(0, 0, 1, 0), s.dtype, 0), 0.0f) << Name(t.isa);
  }
}

TEST(Dropout, AnotherPlaceInTheBatchDropsOtherKeys) {
  for (const Target& t : Targets()) {
    Shape s;
    s.dtype = s.kv_dtype = TypeOn(t.isa);
    s.options.dropout = 0.5;
    SequenceData d(s, 8);
    AttentionArgs a = d.Dense(0, s.seq_q);
    for (TensorView* view : {&a.q, &a.k, &a.v}) {
      view->shape[0] = 2;
      view->stride[0] = 0;  // one sequence, twice
    }
    const AttentionResult r = RunOn(t.isa, a, s.options);
    EXPECT_NE(Collect(r, a.q, 0, 0, s.seq_q).out, Collect(r, a.q, 1, 0, s.seq_q).out) << Name(t.isa);
    EXPECT_EQ(Collect(r, a.q, 0, 0, s.seq_q).lse, Collect(r, a.q, 1, 0, s.seq_q).lse) << Name(t.isa);
  }
}

}  // namespace
}  // namespace regard
