// A row's bits depend on nothing but the row (docs/semantics.md, "Determinism"), as far as the kernels' structure goes:
// in the emulator, whose products are no chip's. On every pretended GPU and for every type.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tests/emulator/emulated_cases.h"
#include "tests/emulator/fake/control.h"
#include "tests/emulator/run_on_device.h"
#include "tests/support/sequence_data.h"

namespace regard::emulator {
namespace {

using testing::Bits;
using testing::Buffer;
using testing::SequenceData;

// Runs a call and gathers the bits of all of its rows, sequence by sequence.
Bits RowsOf(const SequenceData& d, AttentionArgs a, int device) {
  const Problem p = [&] {
    a.out = TensorView::Contiguous(nullptr, d.shape.dtype, {1, a.q.shape[1], d.shape.heads_q, d.shape.head_dim_v});
    Problem exact = ProblemOf(a, d.shape.options);
    exact.lse = true;
    return exact;
  }();
  Buffer out = Buffer::Poisoned(d.shape.dtype, a.out.Elements());
  Buffer lse = Buffer::Poisoned(DType::kF32, a.q.shape[1] * d.shape.heads_q);
  a.out.data = out.At(0);
  a.lse = TensorView::Contiguous(lse.At(0), DType::kF32, {1, d.shape.heads_q, a.q.shape[1]});
  BackwardArgs call;
  call.forward = a;
  const Outcome outcome = RunOnDevice(p, call, device);
  EXPECT_EQ(outcome.Wrong(), "") << outcome.kernel;
  Bits bits;
  bits.out = out.bytes;
  for (std::int64_t i = 0; i < a.q.shape[1]; ++i) {
    for (std::int64_t h = 0; h < d.shape.heads_q; ++h) {
      const std::byte* at = a.lse->At<std::byte>(0, h, i);
      bits.lse.insert(bits.lse.end(), at, at + 4);
    }
  }
  return bits;
}

class Invariance : public ::testing::TestWithParam<int> {};

TEST_P(Invariance, DecodedRowsAndChunksHaveTheBitsOfWholePrefill) {
  const int device = GetParam();
  for (const testing::Shape& shape : InvarianceShapes()) {
    SequenceData d(shape, 5);
    SCOPED_TRACE(std::string(kGpus[device]) + " " + std::string(Name(shape.dtype)) + " keys " +
                 Name(shape.kv_dtype).data());
    const Bits whole = RowsOf(d, d.Dense(0, shape.seq_q), device);
    Bits tokens;
    for (std::int64_t i = 0; i < shape.seq_q; ++i) tokens.Append(RowsOf(d, d.Dense(i, 1), device));
    EXPECT_EQ(whole, tokens);
    Bits chunks;
    std::mt19937 random(1);
    for (std::int64_t i = 0; i < shape.seq_q;) {
      const std::int64_t n = std::min<std::int64_t>(2 + random() % 17, shape.seq_q - i);
      chunks.Append(RowsOf(d, d.Dense(i, n), device));
      i += n;
    }
    EXPECT_EQ(whole, chunks);
  }
}

TEST_P(Invariance, TheOrderOfWarpsChangesNoBit) {
  const int device = GetParam();
  for (const testing::Shape& shape : InvarianceShapes()) {
    SequenceData d(shape, 6);
    for (const std::int64_t n : {shape.seq_q, std::int64_t{1}}) {
      const Bits ordered = RowsOf(d, d.Dense(shape.seq_q - n, n), device);
      for (const std::uint64_t seed : {1, 2}) {
        LaunchOptions options;
        options.seed = seed;
        options.host_threads = 2;
        fake::SetLaunchOptions(options);
        EXPECT_EQ(ordered, RowsOf(d, d.Dense(shape.seq_q - n, n), device)) << seed;
        fake::SetLaunchOptions({});
      }
    }
  }
}

// Pages of a size in random order, in a pool that holds NaN elsewhere.
TEST_P(Invariance, PagedKeysHaveTheBitsOfDenseOnes) {
  const int device = GetParam();
  for (const testing::Shape& shape : InvarianceShapes()) {
    SequenceData d(shape, 7);
    for (const std::int64_t n : {shape.seq_q, std::int64_t{1}}) {
      AttentionArgs a = d.Dense(shape.seq_q - n, n);
      const Bits dense = RowsOf(d, a, device);
      auto keys = static_cast<std::int32_t>(d.KeysFor(shape.seq_q - n, n));
      for (const std::int64_t page : {1, 16, 100}) {
        const std::int64_t used = (keys + page - 1) / page, pool = used + 3;
        std::vector<std::int32_t> table(static_cast<std::size_t>(pool));
        for (std::size_t m = 0; m < table.size(); ++m) table[m] = static_cast<std::int32_t>(m);
        std::shuffle(table.begin(), table.end(), std::mt19937(3));
        const auto paged = [&](Buffer& from, std::int64_t dim) {
          Buffer to = Buffer::Poisoned(shape.kv_dtype, pool * page * shape.heads_kv * dim);
          const std::int64_t row = shape.heads_kv * dim;
          for (std::int64_t j = 0; j < keys; ++j) {
            std::memcpy(to.At((table[static_cast<std::size_t>(j / page)] * page + j % page) * row), from.At(j * row),
                        static_cast<std::size_t>(row) * SizeOf(shape.kv_dtype));
          }
          return to;
        };
        Buffer k = paged(d.k, shape.head_dim), v = paged(d.v, shape.head_dim_v);
        a.k = TensorView::Contiguous(k.At(0), shape.kv_dtype, {pool, page, shape.heads_kv, shape.head_dim});
        a.v = TensorView::Contiguous(v.At(0), shape.kv_dtype, {pool, page, shape.heads_kv, shape.head_dim_v});
        a.block_table = TensorView::Contiguous(table.data(), DType::kI32, {1, used});
        a.seqlens_kv = TensorView::Contiguous(&keys, DType::kI32, {1});
        EXPECT_EQ(dense, RowsOf(d, a, device)) << "page " << page << ", " << n << " queries";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(OfGpu, Invariance, ::testing::Range(0, static_cast<int>(std::size(kGpus))));

}  // namespace
}  // namespace regard::emulator
