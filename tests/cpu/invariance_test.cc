// A row's bits depend on nothing but the row (docs/semantics.md, "Determinism"): bitwise, on every instruction set this
// machine has, for every element type and option.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "regard/regard.h"
#include "tests/support/sequence_data.h"

namespace regard {
namespace {

using testing::Bits;
using testing::Buffer;
using testing::Collect;
using testing::SequenceData;
using testing::Shape;

struct Variant {
  std::string name;
  Shape shape;
};

std::vector<Variant> Variants(DType t, bool every_option) {
  std::vector<Variant> all;
  const auto add = [&](const char* name, auto change) {
    Shape s;
    s.dtype = s.kv_dtype = t;
    s.options.causal = true;
    change(s);
    all.push_back({std::string(Name(t)) + " " + name, s});
  };
  add("causal", [](Shape&) {});
  if (!every_option) return all;
  add("full", [](Shape& s) { s.options.causal = false; });
  add("window", [](Shape& s) { s.options.window_left = 700, s.options.window_right = 0; });
  add("short window", [](Shape& s) { s.options.window_left = 5; });
  add("two-sided window", [](Shape& s) { s.options.causal = false, s.options.window_left = 600, s.options.window_right = 9; });
  add("chunk", [](Shape& s) { s.options.chunk = 600; });
  add("softcap", [](Shape& s) { s.options.softcap = 3; });
  add("negative scale", [](Shape& s) { s.options.scale = -0.3; });
  add("alibi", [](Shape& s) { s.alibi = true; });
  add("bias", [](Shape& s) { s.bias = true; });
  add("mask", [](Shape& s) { s.mask = true; });
  // Sums in the denormal range, which vdpbf16ps flushes as it goes, and weights that underflow.
  add("tiny values, large scores", [](Shape& s) { s.v_deviation = 1e-38, s.q_deviation = 16; });
  add("sink", [](Shape& s) { s.sink = true; });
  add("qv", [](Shape& s) { s.qv = true; });
  add("dropout", [](Shape& s) { s.options.dropout = 0.3; });
  add("dropout, sink, window", [](Shape& s) { s.options.dropout = 0.1, s.options.window_left = 600, s.sink = true; });
  add("everything", [](Shape& s) {
    s.alibi = s.bias = s.mask = s.sink = s.qv = true;
    s.options.softcap = 20, s.options.window_left = 800;
  });
  if (t != DType::kF32) {
    add("fp8 cache", [](Shape& s) { s.kv_dtype = DType::kF8E4M3; });
    add("fp8 cache, dropout", [](Shape& s) { s.kv_dtype = DType::kF8E4M3, s.options.dropout = 0.5; });
    add("fp8 e5m2 cache, softcap", [](Shape& s) { s.kv_dtype = DType::kF8E5M2, s.options.softcap = 10; });
  }
  return all;
}

std::vector<std::string> Isas() {
  std::vector<std::string> names;
  for (Isa isa : DeviceCaps::Host().isas) names.push_back(std::string("cpu.") + Name(isa));
  return names;
}

bool Runs(const std::string& isa, const Shape& s) {
  return isa != "cpu.avx512_bf16" || (s.dtype == DType::kBF16 && !(s.qv && IsFp8(s.kv_dtype)));
}

// Runs with the kernels of one instruction set and a given thread count.
struct Runner {
  std::string isa;
  int threads = 1;
  AttentionResult Run(AttentionArgs a, const AttentionOptions& o, bool lse = true) const {
    std::unique_ptr<Executor> executor(MakeExecutor(threads > 1 ? ExecutorKind::kStdThread : ExecutorKind::kSerial, threads));
    CallControl control;
    control.choice = KernelChoice{{isa}, {}};
    control.executor = executor.get();
    AttentionResult r = Attention(std::move(a), o, lse, control);
    EXPECT_EQ(r.selection.kernel.rfind(isa, 0), 0u) << r.selection.kernel;
    return r;
  }
  Bits Dense(SequenceData& d, std::int64_t i, std::int64_t n) const {
    const AttentionArgs a = d.Dense(i, n);
    return Collect(Run(a, d.shape.options), a.q, 0, 0, n);
  }
};

template <class F>
void ForEach(bool every_option, F check) {
  for (const std::string& isa : Isas()) {
    for (DType t : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const Variant& v : Variants(t, every_option)) {
        if (!Runs(isa, v.shape)) continue;
        SCOPED_TRACE(isa + " " + v.name);
        SequenceData data(v.shape, 17);
        check(Runner{isa}, data);
        if (::testing::Test::HasFailure()) return;
      }
    }
  }
}

TEST(Invariance, DecodedRowsHaveTheBitsOfWholePrefill) {
  ForEach(true, [](Runner run, SequenceData& d) {
    const Bits whole = run.Dense(d, 0, d.shape.seq_q);
    Bits tokens;
    for (std::int64_t i = 0; i < d.shape.seq_q; ++i) tokens.Append(run.Dense(d, i, 1));
    EXPECT_EQ(whole, tokens);
  });
}

TEST(Invariance, RandomChunksHaveTheBitsOfWholePrefill) {
  std::mt19937 rng(3);
  ForEach(true, [&](Runner run, SequenceData& d) {
    const Bits whole = run.Dense(d, 0, d.shape.seq_q);
    Bits pieces;
    for (std::int64_t i = 0; i < d.shape.seq_q;) {
      const std::int64_t n = std::min<std::int64_t>(1 + rng() % 23, d.shape.seq_q - i);
      pieces.Append(run.Dense(d, i, n));
      i += n;
    }
    EXPECT_EQ(whole, pieces);
  });
}

TEST(Invariance, ThreadsAndLseChangeNoBit) {
  ForEach(true, [](Runner run, SequenceData& d) {
    for (std::int64_t n : {d.shape.seq_q, std::int64_t{1}}) {
      const AttentionArgs a = d.Dense(d.shape.seq_q - n, n);
      const Bits one = Collect(run.Run(a, d.shape.options), a.q, 0, 0, n);
      EXPECT_EQ(one, Collect(Runner{run.isa, 2}.Run(a, d.shape.options), a.q, 0, 0, n));
      EXPECT_EQ(one, Collect(Runner{run.isa, 5}.Run(a, d.shape.options), a.q, 0, 0, n));
      const AttentionResult without = run.Run(a, d.shape.options, false);
      EXPECT_EQ(std::memcmp(without.out.view().data, one.out.data(), one.out.size()), 0);
    }
  });
}

// Pages of the sequence, scattered over a pool that holds NaN elsewhere.
struct Paged {
  Buffer k, v;
  std::vector<std::int32_t> table;
  std::int32_t keys;
  AttentionArgs args;

  Paged(SequenceData& d, std::int64_t i, std::int64_t n, std::int64_t page, KvLayout layout) {
    const Shape& s = d.shape;
    args = d.Dense(i, n);
    keys = static_cast<std::int32_t>(d.KeysFor(i, n));
    const std::int64_t used = (keys + page - 1) / page, pool = 2 * used + 1;
    k = Buffer::Poisoned(s.kv_dtype, pool * page * s.heads_kv * s.head_dim);
    v = Buffer::Poisoned(s.kv_dtype, pool * page * s.heads_kv * s.head_dim_v);
    std::vector<std::int32_t> order(static_cast<std::size_t>(pool));
    for (std::size_t m = 0; m < order.size(); ++m) order[m] = static_cast<std::int32_t>(m);
    std::shuffle(order.begin(), order.end(), std::mt19937(7));
    table.assign(order.begin(), order.begin() + used);
    table.push_back(-1);
    const bool nhd = layout == KvLayout::kNHD;
    const auto copy = [&](Buffer& to, Buffer& from, std::int64_t dim) {
      const std::size_t bytes = static_cast<std::size_t>(dim) * SizeOf(to.dtype);
      for (std::int64_t j = 0; j < keys; ++j) {
        for (std::int64_t h = 0; h < s.heads_kv; ++h) {
          const std::int64_t p = table[static_cast<std::size_t>(j / page)], slot = j % page;
          const std::int64_t row = nhd ? (p * page + slot) * s.heads_kv + h : (p * s.heads_kv + h) * page + slot;
          std::memcpy(to.At(row * dim), from.At((j * s.heads_kv + h) * dim), bytes);
        }
      }
    };
    copy(k, d.k, s.head_dim);
    copy(v, d.v, s.head_dim_v);
    const auto view = [&](Buffer& b, std::int64_t dim) {
      return nhd ? TensorView::Contiguous(b.At(0), s.kv_dtype, {pool, page, s.heads_kv, dim})
                 : TensorView::Contiguous(b.At(0), s.kv_dtype, {pool, s.heads_kv, page, dim});
    };
    args.k = view(k, s.head_dim);
    args.v = view(v, s.head_dim_v);
    args.block_table = TensorView::Contiguous(table.data(), DType::kI32, {1, static_cast<std::int64_t>(table.size())});
    args.seqlens_kv = TensorView::Contiguous(&keys, DType::kI32, {1});
  }
};

TEST(Invariance, PagedKeysHaveTheBitsOfDenseOnes) {
  ForEach(true, [](Runner run, SequenceData& d) {
    for (std::int64_t n : {d.shape.seq_q, std::int64_t{1}}) {
      const std::int64_t i = d.shape.seq_q - n;
      const Bits dense = run.Dense(d, i, n);
      for (std::int64_t page : {1, 16, 256}) {
        Paged paged(d, i, n, page, KvLayout::kNHD);
        EXPECT_EQ(dense, Collect(run.Run(paged.args, d.shape.options), paged.args.q, 0, 0, n)) << "page " << page;
      }
    }
  });
}

TEST(Invariance, LeftPaddingMovesNoBit) {
  ForEach(true, [](Runner run, SequenceData& d) {
    if (d.shape.bias || d.shape.mask) return;  // they are indexed by j, which padding moves
    const Shape& s = d.shape;
    const std::int32_t pad = 77;
    for (std::int64_t n : {s.seq_q, std::int64_t{1}}) {
      const std::int64_t i = s.seq_q - n, keys = d.KeysFor(i, n);
      const Bits plain = run.Dense(d, i, n);
      AttentionArgs a = d.Dense(i, n);
      const auto padded = [&](Buffer& from, std::int64_t dim) {
        Buffer b = Buffer::Poisoned(s.kv_dtype, (pad + keys) * s.heads_kv * dim);
        std::memcpy(b.At(pad * s.heads_kv * dim), from.At(0), static_cast<std::size_t>(keys * s.heads_kv * dim) * SizeOf(b.dtype));
        return b;
      };
      Buffer k = padded(d.k, s.head_dim), v = padded(d.v, s.head_dim_v);
      a.k = TensorView::Contiguous(k.At(0), s.kv_dtype, {1, pad + keys, s.heads_kv, s.head_dim});
      a.v = TensorView::Contiguous(v.At(0), s.kv_dtype, {1, pad + keys, s.heads_kv, s.head_dim_v});
      a.leftpad = TensorView::Contiguous(const_cast<std::int32_t*>(&pad), DType::kI32, {1});
      EXPECT_EQ(plain, Collect(run.Run(a, s.options), a.q, 0, 0, n));
    }
  });
}

// Three sequences packed: a long prefill, a decode step of the sequence under test, and its own prefill.
TEST(Invariance, MixedBatchHasTheBitsOfItsParts) {
  ForEach(true, [](Runner run, SequenceData& d) {
    const Shape& s = d.shape;
    if (s.bias || s.mask || !s.options.causal) return;  // one (i, j) table cannot serve two chunks of one sequence
    if (s.options.dropout > 0) return;  // what is dropped depends on the place in the batch
    const Bits whole = run.Dense(d, 0, s.seq_q);
    Shape other_shape = s;
    other_shape.seq_q = 90;
    other_shape.seq_kv = 600;
    SequenceData other(other_shape, 99);
    const std::int64_t tq = 90 + 1 + s.seq_q, tkv = 600 + 2 * s.seq_kv;
    const auto join = [](DType t, std::initializer_list<std::pair<Buffer*, std::pair<std::int64_t, std::int64_t>>> parts) {
      Buffer b;
      b.dtype = t;
      for (auto& [from, range] : parts) {
        b.bytes.insert(b.bytes.end(), from->At(range.first), from->At(range.first) + range.second * static_cast<std::int64_t>(SizeOf(t)));
      }
      return b;
    };
    const auto queries = [&](Buffer& mine, Buffer& others, std::int64_t dim) {
      const std::int64_t row = s.heads_q * dim;
      return join(s.dtype, {{&others, {0, 90 * row}}, {&mine, {(s.seq_q - 1) * row, row}}, {&mine, {0, s.seq_q * row}}});
    };
    const auto keys = [&](Buffer& mine, Buffer& others, std::int64_t dim) {
      const std::int64_t row = s.heads_kv * dim;
      return join(s.kv_dtype, {{&others, {0, 600 * row}}, {&mine, {0, s.seq_kv * row}}, {&mine, {0, s.seq_kv * row}}});
    };
    Buffer q = queries(d.q, other.q, s.head_dim), qv = queries(d.qv, other.qv, s.head_dim_v);
    Buffer k = keys(d.k, other.k, s.head_dim), v = keys(d.v, other.v, s.head_dim_v);
    AttentionArgs a;
    d.AddOptions(a, 0, s.seq_q, s.seq_kv);
    a.q = TensorView::Contiguous(q.At(0), s.dtype, {tq, s.heads_q, s.head_dim});
    a.k = TensorView::Contiguous(k.At(0), s.kv_dtype, {tkv, s.heads_kv, s.head_dim});
    a.v = TensorView::Contiguous(v.At(0), s.kv_dtype, {tkv, s.heads_kv, s.head_dim_v});
    if (s.qv) a.qv = TensorView::Contiguous(qv.At(0), s.dtype, {tq, s.heads_q, s.head_dim_v});
    Buffer kd(DType::kF32, 3 * s.heads_kv), vd(DType::kF32, 3 * s.heads_kv);
    if (IsFp8(s.kv_dtype)) {
      for (int b = 0; b < 3; ++b) {
        std::memcpy(kd.At(b * s.heads_kv), d.k_descale.At(0), d.k_descale.bytes.size());
        std::memcpy(vd.At(b * s.heads_kv), d.v_descale.At(0), d.v_descale.bytes.size());
      }
      a.k_descale = TensorView::Contiguous(kd.At(0), DType::kF32, {3, s.heads_kv});
      a.v_descale = TensorView::Contiguous(vd.At(0), DType::kF32, {3, s.heads_kv});
    }
    std::int32_t cu_q[] = {0, 90, 91, static_cast<std::int32_t>(tq)};
    std::int32_t cu_kv[] = {0, 600, 600 + static_cast<std::int32_t>(s.seq_kv), static_cast<std::int32_t>(tkv)};
    a.cu_seqlens_q = TensorView::Contiguous(cu_q, DType::kI32, {4});
    a.cu_seqlens_kv = TensorView::Contiguous(cu_kv, DType::kI32, {4});
    for (int threads : {1, 2}) {
      const AttentionResult r = Runner{run.isa, threads}.Run(a, s.options);
      EXPECT_NE(r.selection.kernel.find(".mixed."), std::string::npos);
      EXPECT_EQ(whole, Collect(r, a.q, 0, 91, s.seq_q));
      const Bits last = Collect(r, a.q, 0, 90, 1);
      EXPECT_EQ(last, Collect(r, a.q, 0, 91 + s.seq_q - 1, 1));
    }
  });
}

TEST(Invariance, SpeculativeStepsOfUpTo15TokensHaveTheBitsOfPrefill) {
  ForEach(false, [](Runner run, SequenceData& d) {
    const Bits whole = run.Dense(d, 0, d.shape.seq_q);
    const std::int64_t out_row = d.shape.heads_q * d.shape.head_dim_v * static_cast<std::int64_t>(SizeOf(d.shape.dtype));
    for (std::int64_t n : {2, 3, 7, 15}) {
      EXPECT_EQ(whole.Rows(4, n, out_row, 4 * d.shape.heads_q), run.Dense(d, 4, n)) << n;
    }
  });
}

// Heads of whole lines of 64 bytes, which decode reads straight from the cache, with columns and keys left over; groups
// below and above its tiles. Every finite fp8 value is met in k and in v.
TEST(Invariance, DecodeStraightFromTheCacheHasTheBitsOfPrefill) {
  for (const std::string& isa : Isas()) {
    for (DType t : {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2}) {
      for (const auto& [head_dim, head_dim_v] : {std::pair{128, 128}, {64, 112}, {104, 80}}) {
        for (const int group : {1, 3, 4, 5, 7}) {
          Shape s;
          s.kv_dtype = t;
          s.dtype = IsFp8(t) ? DType::kBF16 : t;
          if (!Runs(isa, s)) continue;
          s.options.causal = true;
          s.seq_q = 17, s.seq_kv = 17 + 250 * group, s.heads_q = 2 * group, s.heads_kv = 2;
          s.head_dim = head_dim, s.head_dim_v = head_dim_v;
          SCOPED_TRACE(isa + " " + std::string(Name(t)) + " dims " + std::to_string(head_dim) + ", " +
                       std::to_string(head_dim_v) + " group " + std::to_string(group));
          SequenceData d(s, 29);
          if (IsFp8(t)) {
            std::mt19937 rng(5);
            for (Buffer* b : {&d.k, &d.v}) {
              for (auto& byte : b->bytes) {
                do byte = std::byte(rng());
                while (!std::isfinite(LoadFloat(&byte, t, 0)));
              }
            }
          }
          const Runner run{isa};
          const Bits whole = run.Dense(d, 0, s.seq_q);
          Bits tokens;
          for (std::int64_t i = 0; i < s.seq_q; ++i) tokens.Append(run.Dense(d, i, 1));
          ASSERT_EQ(whole, tokens);
        }
      }
    }
  }
}

}  // namespace
}  // namespace regard
