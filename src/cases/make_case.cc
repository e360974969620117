// MakeCase: lengths, query and key tensors, and the values in them. Values are a function of (seed, tensor, sequence,
// position, head, channel) alone, so dense, packed, paged and appended forms of one problem hold the same numbers.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>

#include "regard/status.h"
#include "src/cases/builder.h"
#include "src/cases/parallel.h"
#include "src/problem/lengths.h"

namespace regard::cases {
namespace {

constexpr std::int64_t kPoisonChunk = std::int64_t{1} << 22;  // bytes a task
constexpr std::int64_t kTokensPerTask = 64;

// Quiet NaN of each floating type; -1 for indices (legal where nothing reads them), 0 for masks.
std::uint32_t PoisonPattern(DType t) {
  switch (t) {
    case DType::kF32: return 0x7fc00000u;
    case DType::kF16: return 0x7e007e00u;
    case DType::kBF16: return 0x7fc07fc0u;
    case DType::kF8E4M3:
    case DType::kF8E5M2: return 0x7f7f7f7fu;
    case DType::kI32: return 0xffffffffu;
    default: return 0;
  }
}

void Poison(const Buffer& buffer, DType dtype) {
  const std::uint32_t pattern = PoisonPattern(dtype);
  const auto bytes = static_cast<std::int64_t>(buffer.size());
  ParallelFor((bytes + kPoisonChunk - 1) / kPoisonChunk, static_cast<double>(bytes), [&](std::int64_t task) {
    std::byte* at = buffer.data() + task * kPoisonChunk;
    std::int64_t left = std::min(kPoisonChunk, bytes - task * kPoisonChunk);
    for (; left >= 4; left -= 4, at += 4) std::memcpy(at, &pattern, 4);
    std::memcpy(at, &pattern, static_cast<std::size_t>(left));
  });
}

// A run of tokens of one sequence.
struct TokenRun {
  std::int64_t b, begin, end;
};

void AddRuns(std::vector<TokenRun>& runs, std::int64_t b, std::int64_t begin, std::int64_t end) {
  for (; begin < end; begin += kTokensPerTask) runs.push_back({b, begin, std::min(end, begin + kTokensPerTask)});
}

// fn(b, token) for every token of the runs, each of `elements` numbers.
template <class Fn>
void ForTokens(const std::vector<TokenRun>& runs, std::int64_t elements, Fn&& fn) {
  const double work = static_cast<double>(runs.size()) * kTokensPerTask * static_cast<double>(elements);
  ParallelFor(static_cast<std::int64_t>(runs.size()), work, [&](std::int64_t task) {
    const TokenRun& run = runs[static_cast<std::size_t>(task)];
    for (std::int64_t t = run.begin; t < run.end; ++t) fn(run.b, t);
  });
}

// Heads of one token that starts at element `offset` of `view`.
void FillHeads(const TensorView& view, std::int64_t offset, std::int64_t head_stride, std::int64_t heads,
               double deviation, std::uint64_t seed, Stream stream, std::int64_t b, std::int64_t token) {
  const auto size = static_cast<std::int64_t>(SizeOf(view.dtype));
  for (std::int64_t h = 0; h < heads; ++h) {
    FillNormal(static_cast<std::byte*>(view.data) + (offset + h * head_stride) * size, view.dtype,
               view.shape[view.rank - 1], deviation, Key(seed, stream, b, h, token));
  }
}

// Row `token` of sequence b in a dense or packed tensor.
std::int64_t RowOffset(const TensorView& view, std::int64_t first_row, std::int64_t b, std::int64_t token) {
  return view.rank == 3 ? (first_row + token) * view.stride[0] : b * view.stride[0] + token * view.stride[1];
}

std::vector<std::int64_t> PrefixSums(const std::vector<std::int64_t>& values) {
  std::vector<std::int64_t> sums(values.size() + 1, 0);
  std::partial_sum(values.begin(), values.end(), sums.begin() + 1);
  return sums;
}

}  // namespace

Builder::Builder(const Problem& p, std::size_t max_bytes)
    : p_(p), max_bytes_(max_bytes), impl_(std::make_unique<Case::Impl>()), args_(impl_->call.forward) {
  impl_->problem = p;
}

TensorView Builder::NewTensor(DType dtype, std::initializer_list<std::int64_t> shape) {
  double wanted = static_cast<double>(SizeOf(dtype));
  for (const std::int64_t extent : shape) wanted *= static_cast<double>(extent);
  if (wanted + static_cast<double>(bytes_) > static_cast<double>(max_bytes_)) {
    throw Error("case", "tensors of more than " + std::to_string(max_bytes_ >> 20) + " MiB",
                "a case that fits: smaller b, sq, skv, heads or page");
  }
  std::size_t bytes = SizeOf(dtype);
  for (const std::int64_t extent : shape) bytes *= static_cast<std::size_t>(extent);
  bytes_ += bytes;
  Buffer& buffer = impl_->buffers.emplace_back(bytes);
  Poison(buffer, dtype);
  return TensorView::Contiguous(buffer.data(), dtype, shape);
}

TensorView Builder::NewDense(DType dtype, std::int64_t rows, std::int64_t tokens, std::int64_t heads,
                             std::int64_t dim) {
  if (p_.order == DenseOrder::kBSHD) return NewTensor(dtype, {rows, tokens, heads, dim});
  TensorView view = NewTensor(dtype, {rows, heads, tokens, dim});
  std::swap(view.shape[1], view.shape[2]);
  std::swap(view.stride[1], view.stride[2]);
  return view;
}

TensorView Builder::NewInts(const std::vector<std::int64_t>& values) {
  const TensorView view = NewTensor(DType::kI32, {static_cast<std::int64_t>(values.size())});
  auto* out = static_cast<std::int32_t*>(view.data);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] > INT32_MAX) throw Error("case", std::to_string(values[i]) + " tokens or pages", "at most 2^31 - 1");
    out[i] = static_cast<std::int32_t>(values[i]);
  }
  return view;
}

bool Builder::UsesBatchIndex() const {
  const bool csr = p_.page_size && p_.table == TableKind::kCsr;
  return rare() && p_.append && !csr && (p_.page_size || !p_.varlen);
}

void Builder::SettleLengths() {
  if (p_.batch > kMaxListedSequences) throw Error("b", std::to_string(p_.batch), "at most 16777216 in a generated case");
  seq_q_ = QueryLengths(p_);
  seq_kv_ = KeyLengths(p_);
  append_.assign(seq_kv_.size(), 0);
  leftpad_.assign(seq_kv_.size(), 0);
  for (std::size_t i = 0; i < seq_kv_.size(); ++i) {
    if (p_.append) {
      if (!p_.varlen) seq_kv_[i] = std::max(seq_kv_[i], *p_.append);
      append_[i] = std::min(*p_.append, seq_kv_[i]);
    }
    if (p_.leftpad) {
      const auto b = static_cast<std::int64_t>(i);
      leftpad_[i] = UniformInt(Key(p_.seed, Stream::kLeftpad, b), 0, (seq_kv_[i] - append_[i]) / 4);
    }
  }
}

void Builder::MakeQueries() {
  const auto batch = p_.batch;
  std::vector<std::int64_t> owned = seq_q_;
  if (p_.varlen) {
    for (std::size_t b = 0; b < owned.size() && rare(); ++b) {
      const std::int64_t gap = UniformInt(Key(p_.seed, Stream::kGap, static_cast<std::int64_t>(b)), 0, 3);
      owned[b] = std::min(owned[b] + gap, p_.seq_q);
    }
    const std::vector<std::int64_t> begins = PrefixSums(owned);
    const std::int64_t total = begins.back() + (rare() ? 2 : 0);
    args_.cu_seqlens_q = NewInts(begins);
    args_.q = NewTensor(p_.dtype, {total, p_.heads_q, p_.head_dim});
    args_.out = NewTensor(p_.OutType(), {total, p_.heads_q, p_.head_dim_v});
    if (p_.qv) args_.qv = NewTensor(p_.dtype, {total, p_.heads_q, p_.head_dim_v});
    if (p_.lse || backward()) args_.lse = NewTensor(DType::kF32, {p_.heads_q, total});
  } else {
    owned.assign(owned.size(), p_.seq_q);
    args_.q = NewDense(p_.dtype, batch, p_.seq_q, p_.heads_q, p_.head_dim);
    args_.out = NewDense(p_.OutType(), batch, p_.seq_q, p_.heads_q, p_.head_dim_v);
    if (p_.qv) args_.qv = NewDense(p_.dtype, batch, p_.seq_q, p_.heads_q, p_.head_dim_v);
    if (p_.lse || backward()) args_.lse = NewTensor(DType::kF32, {batch, p_.heads_q, p_.seq_q});
  }
  if (owned != seq_q_) args_.seqused_q = NewInts(seq_q_);
}

void Builder::MakeKeys() {
  std::vector<std::int64_t> owned = seq_kv_;
  if (p_.page_size) {
    MakePages();
    if (p_.table == TableKind::kBlock || rare()) args_.seqlens_kv = NewInts(seq_kv_);
  } else if (p_.varlen) {
    for (std::size_t b = 0; b < owned.size() && rare(); ++b) {
      owned[b] += UniformInt(Key(p_.seed, Stream::kGap, static_cast<std::int64_t>(b), 1), 0, 3);
    }
    const std::vector<std::int64_t> begins = PrefixSums(owned);
    const std::int64_t total = begins.back() + (rare() ? 2 : 0);
    args_.cu_seqlens_kv = NewInts(begins);
    args_.k = NewTensor(p_.kv_dtype, {total, p_.heads_kv, p_.head_dim});
    args_.v = NewTensor(p_.kv_dtype, {total, p_.heads_kv, p_.head_dim_v});
    if (owned != seq_kv_) args_.seqused_kv = NewInts(seq_kv_);
  } else {
    const bool listed = !p_.lens.empty();
    const std::int64_t capacity = p_.seq_kv + (listed || p_.append ? 3 : 0);
    args_.k = NewDense(p_.kv_dtype, CacheRows(), capacity, p_.heads_kv, p_.head_dim);
    args_.v = NewDense(p_.kv_dtype, CacheRows(), capacity, p_.heads_kv, p_.head_dim_v);
    if (listed && !p_.append) (rare() && !backward() ? args_.cache_seqlens : args_.seqused_kv) = NewInts(seq_kv_);
  }
}

void Builder::MakeNewKeys() {
  if (UsesBatchIndex()) {
    std::vector<std::int64_t> rows;
    for (std::int64_t b = 0; b < p_.batch; ++b) rows.push_back(CacheRow(b));
    args_.cache_batch_idx = NewInts(rows);
  }
  std::vector<std::int64_t> cached = seq_kv_;
  for (std::size_t b = 0; b < cached.size(); ++b) cached[b] -= append_[b];
  args_.cache_seqlens = NewInts(cached);
  if (p_.varlen) {
    const std::vector<std::int64_t> begins = PrefixSums(append_);
    args_.cu_seqlens_new = NewInts(begins);
    args_.k_new = NewTensor(p_.dtype, {begins.back(), p_.heads_kv, p_.head_dim});
    args_.v_new = NewTensor(p_.dtype, {begins.back(), p_.heads_kv, p_.head_dim_v});
  } else {
    args_.k_new = NewDense(p_.dtype, p_.batch, *p_.append, p_.heads_kv, p_.head_dim);
    args_.v_new = NewDense(p_.dtype, p_.batch, *p_.append, p_.heads_kv, p_.head_dim_v);
  }
}

std::vector<Sequence> Builder::FillTokens() {
  std::vector<Sequence> sequences(static_cast<std::size_t>(p_.batch));
  std::vector<std::byte> scratch(ResolveScratchBytes(p_));
  ResolveArgs(p_, args_, true, sequences, scratch);

  std::vector<TokenRun> queries, keys, appended;
  for (std::int64_t b = 0; b < p_.batch; ++b) {
    const Sequence& s = sequences[static_cast<std::size_t>(b)];
    AddRuns(queries, b, 0, s.seq_q);
    AddRuns(keys, b, s.leftpad, s.seq_kv - s.append_count);
    AddRuns(appended, b, 0, s.append_count);
  }
  const std::uint64_t seed = p_.seed;
  const int head_dim_index = args_.q.rank - 2;
  ForTokens(queries, p_.heads_q * p_.head_dim, [&](std::int64_t b, std::int64_t i) {
    const std::int64_t first = sequences[static_cast<std::size_t>(b)].q_row;
    FillHeads(args_.q, RowOffset(args_.q, first, b, i), args_.q.stride[head_dim_index], p_.heads_q, p_.qscale, seed,
              Stream::kQ, b, i);
    if (!args_.qv) return;
    FillHeads(*args_.qv, RowOffset(*args_.qv, first, b, i), args_.qv->stride[head_dim_index], p_.heads_q, p_.qscale,
              seed, Stream::kQv, b, i);
  });
  ForTokens(keys, p_.heads_kv * (p_.head_dim + p_.head_dim_v), [&](std::int64_t b, std::int64_t j) {
    const Sequence& s = sequences[static_cast<std::size_t>(b)];
    FillHeads(args_.k, KvTokenOffset(p_, args_, s, args_.k, j), KvHeadStride(p_, args_.k), p_.heads_kv, 1, seed,
              Stream::kK, b, j);
    FillHeads(args_.v, KvTokenOffset(p_, args_, s, args_.v, j), KvHeadStride(p_, args_.v), p_.heads_kv, 1, seed,
              Stream::kV, b, j);
  });
  ForTokens(appended, p_.heads_kv * (p_.head_dim + p_.head_dim_v), [&](std::int64_t b, std::int64_t t) {
    const Sequence& s = sequences[static_cast<std::size_t>(b)];
    const TensorView &k = *args_.k_new, &v = *args_.v_new;
    const std::int64_t j = s.append_begin + t;
    FillHeads(k, RowOffset(k, s.new_row, b, t), k.stride[k.rank - 2], p_.heads_kv, 1, seed, Stream::kK, b, j);
    FillHeads(v, RowOffset(v, s.new_row, b, t), v.stride[v.rank - 2], p_.heads_kv, 1, seed, Stream::kV, b, j);
  });
  return sequences;
}

Case Builder::Build() && {
  SettleLengths();
  MakeQueries();
  MakeKeys();
  if (p_.append) {
    args_.seqlens_kv.reset();
    MakeNewKeys();
  }
  MakeOptions();
  if (backward()) MakeGradients();
  const std::vector<Sequence> sequences = FillTokens();
  if (backward()) {
    FillGradients(sequences);
    RunForward(sequences);
  }
  Case made;
  made.impl = std::move(impl_);
  return made;
}

namespace {

void PoisonView(const TensorView& view) {
  std::memset(view.data, 0xff, static_cast<std::size_t>(view.Elements()) * SizeOf(view.dtype));  // all ones: a NaN
}

}  // namespace

void PoisonOutputs(AttentionArgs& args) {
  PoisonView(args.out);
  if (args.lse) PoisonView(*args.lse);
}

void PoisonOutputs(const Problem& p, BackwardArgs& call) {
  if (p.phase != Phase::kBackward) return PoisonOutputs(call.forward);
  for (const TensorView* view : {&call.dq, &call.dk, &call.dv}) PoisonView(*view);
  if (call.dbias) PoisonView(*call.dbias);
  if (call.dsink) PoisonView(*call.dsink);
}

void LaunchCall(const Plan& plan, const BackwardArgs& call, Workspace workspace) {
  if (plan.problem().phase == Phase::kBackward) {
    LaunchBackward(plan, call, workspace);
  } else {
    Launch(plan, call.forward, workspace);
  }
}

Case MakeCase(const Problem& p, std::size_t max_bytes) {
  Validate(p);
  return Builder(p, max_bytes).Build();
}

}  // namespace regard::cases
