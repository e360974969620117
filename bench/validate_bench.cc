// What the checks of one launch cost: a decode batch over 4096 keys a sequence, 32/8 heads, d 128, bf16, for page-16
// block tables (256 entries a sequence), the same as CSR, and dense; with and without an append of one token. Nothing
// but tables and views is read, so k and v are addresses that no test touches.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "src/problem/sequence.h"

namespace regard {
namespace {

constexpr std::int64_t kKeys = 4096, kPageSize = 16, kHeadsQ = 32, kHeadsKv = 8, kHeadDim = 128;
constexpr std::int64_t kColumns = kKeys / kPageSize;

enum Kind { kBlockTable, kCsr, kDense };

// Index tensors are real; the others claim addresses far apart.
class DecodeCall {
 public:
  DecodeCall(Kind kind, std::int64_t batch, bool append) {
    p_.phase = Phase::kDecode;
    p_.batch = batch, p_.seq_q = 1, p_.seq_kv = kKeys;
    p_.heads_q = kHeadsQ, p_.heads_kv = kHeadsKv, p_.head_dim = p_.head_dim_v = kHeadDim;
    p_.dtype = p_.kv_dtype = DType::kBF16;
    a_.q = Claim({batch, 1, kHeadsQ, kHeadDim});
    a_.out = Claim({batch, 1, kHeadsQ, kHeadDim});
    if (kind == kDense) {
      a_.k = Claim({batch, kKeys, kHeadsKv, kHeadDim});
      a_.v = Claim({batch, kKeys, kHeadsKv, kHeadDim});
    } else {
      p_.page_size = kPageSize;
      a_.k = Claim({batch * kColumns, kPageSize, kHeadsKv, kHeadDim});
      a_.v = Claim({batch * kColumns, kPageSize, kHeadsKv, kHeadDim});
    }
    // Each page once, in an order that jumps through the pool.
    table_.resize(static_cast<std::size_t>(batch * kColumns));
    for (std::size_t i = 0; i < table_.size(); ++i) table_[i] = static_cast<std::int32_t>(i * 40503 % table_.size());
    last_.assign(static_cast<std::size_t>(batch), static_cast<std::int32_t>(kPageSize));
    for (std::int64_t b = 0; b <= batch; ++b) indptr_.push_back(static_cast<std::int32_t>(b * kColumns));
    lengths_.assign(static_cast<std::size_t>(batch), static_cast<std::int32_t>(append ? kKeys - 1 : kKeys));
    if (kind == kBlockTable) a_.block_table = Ints(table_, {batch, kColumns});
    if (kind == kCsr) {
      p_.table = TableKind::kCsr;
      a_.kv_indices = Ints(table_, {batch * kColumns});
      a_.kv_indptr = Ints(indptr_, {batch + 1});
      a_.kv_last_page_len = Ints(last_, {batch});
    }
    if (append) {
      p_.append = 1;
      a_.cache_seqlens = Ints(lengths_, {batch});
      a_.k_new = Claim({batch, 1, kHeadsKv, kHeadDim});
      a_.v_new = Claim({batch, 1, kHeadsKv, kHeadDim});
    } else {
      a_.seqlens_kv = Ints(lengths_, {batch});
    }
    sequences_.resize(static_cast<std::size_t>(batch));
    scratch_.resize(ResolveScratchBytes(p_));
  }
  void Resolve(bool check) {
    ResolveArgs(p_, a_, check, sequences_, scratch_);
    benchmark::DoNotOptimize(sequences_.data());
  }

 private:
  TensorView Claim(std::initializer_list<std::int64_t> shape) {
    next_ += std::uintptr_t{1} << 36;
    return TensorView::Contiguous(reinterpret_cast<void*>(next_), DType::kBF16, shape);
  }
  static TensorView Ints(std::vector<std::int32_t>& values, std::initializer_list<std::int64_t> shape) {
    return TensorView::Contiguous(values.data(), DType::kI32, shape);
  }

  Problem p_;
  AttentionArgs a_;
  std::vector<std::int32_t> table_, indptr_, last_, lengths_;
  std::vector<Sequence> sequences_;
  std::vector<std::byte> scratch_;
  std::uintptr_t next_ = std::uintptr_t{1} << 36;
};

template <Kind kind, bool append>
void Checked(benchmark::State& state) {
  DecodeCall call(kind, state.range(0), append);
  for (auto _ : state) call.Resolve(true);
}

// The same without the checks: what filling the Sequence array costs.
void FillOnly(benchmark::State& state) {
  DecodeCall call(kBlockTable, state.range(0), false);
  for (auto _ : state) call.Resolve(false);
}

BENCHMARK(Checked<kBlockTable, false>)->Name("block_table")->Arg(1)->Arg(64);
BENCHMARK(Checked<kBlockTable, true>)->Name("block_table, append")->Arg(64);
BENCHMARK(Checked<kCsr, false>)->Name("csr")->Arg(64);
BENCHMARK(Checked<kDense, true>)->Name("dense, append")->Arg(64);
BENCHMARK(FillOnly)->Name("unchecked")->Arg(64);

}  // namespace
}  // namespace regard

BENCHMARK_MAIN();
