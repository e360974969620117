#include "cli/peer_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "src/cases/cases.h"

namespace regard::cli {
namespace {

constexpr std::size_t kAlignment = 4096;

std::size_t Aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::size_t BytesOf(std::int64_t elements, DType type) { return static_cast<std::size_t>(elements) * SizeOf(type); }

// Rows (b, s, h) of a dense tensor of any strides, one after another; `row_of(b)` is the tensor's batch index of b.
template <class RowOf>
void CopyRows(const TensorView& from, std::int64_t batch, RowOf row_of, std::byte* to) {
  const std::size_t bytes = BytesOf(from.shape[3], from.dtype);
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t s = 0; s < from.shape[1]; ++s) {
      for (std::int64_t h = 0; h < from.shape[2]; ++h, to += bytes) {
        std::memcpy(to, from.At(row_of(b), s, h, std::int64_t{0}), bytes);
      }
    }
  }
}

nlohmann::json OrNull(const std::optional<std::int64_t>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

}  // namespace

std::string WhyNoPeers(const Problem& p) {
  if (p.phase == Phase::kMixed) return "peers take no mixed batches";
  if (p.batch < 1 || p.seq_q < 1 || p.seq_kv < p.seq_q) return "peers take one query or more, and no fewer keys";
  if (!p.lens.empty() || !p.qlens.empty()) return "peers take sequences of one length";
  if (p.dtype != p.kv_dtype || p.OutType() != p.dtype || IsFp8(p.dtype)) return "peers take one type: f32, f16 or bf16";
  const std::pair<bool, const char*> options[] = {
      {p.varlen, "packed sequences"}, {p.alibi, "ALiBi"},         {p.bias, "bias"},
      {p.mask, "a mask"},             {p.sink, "sinks"},          {p.leftpad, "left padding"},
      {p.qv, "qv"},                   {p.q_offset, "q_offset"},   {p.score_mod, "score_mod"},
      {p.mask_mod, "mask_mod"},       {p.lse, "lse"},             {p.append.has_value(), "an append"},
      {p.dlse, "a gradient of lse"},
      {p.options.dropout != 0, "dropout"}, {p.options.chunk.has_value(), "chunks"}};
  for (const auto& [given, name] : options) {
    if (given) return fmt::format("peers are not asked for {}", name);
  }
  return {};
}

std::vector<TensorView> ResultsOf(const Problem& p, const BackwardArgs& call) {
  if (p.phase == Phase::kBackward) return {call.dq, call.dk, call.dv};
  return {call.forward.out};
}

PeerMemory::PeerMemory() : descriptor_(memfd_create("regard peers", MFD_CLOEXEC)) {
  if (descriptor_ < 0) throw std::bad_alloc();
}

PeerMemory::~PeerMemory() {
  if (map_) munmap(map_, bytes_);
  if (descriptor_ >= 0) close(descriptor_);
}

void PeerMemory::Resize(std::size_t bytes) {
  if (map_) munmap(map_, bytes_);
  map_ = nullptr;
  // To nothing first: pages of the last case go back.
  if (ftruncate(descriptor_, 0) != 0 || ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0) throw std::bad_alloc();
  void* map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0);
  if (map == MAP_FAILED) throw std::bad_alloc();
  map_ = static_cast<std::byte*>(map);
  bytes_ = bytes;
}

std::string PeerMemory::Fill(const Problem& p, const BackwardArgs& call) {
  if (p.page_size) {
    Problem twin = p;
    twin.page_size.reset();
    twin.table = TableKind::kBlock;
    twin.layout = KvLayout::kNHD;
    twin.placement = Placement::kOrdered;
    const cases::Case dense = cases::MakeCase(twin);
    return Fill(twin, dense.call());
  }
  const AttentionArgs& args = call.forward;
  const bool backward = p.phase == Phase::kBackward;
  const std::int64_t q_elements = p.batch * p.seq_q * p.heads_q * p.head_dim;
  const std::int64_t keys = p.batch * p.seq_kv * p.heads_kv, outs = p.batch * p.seq_q * p.heads_q * p.head_dim_v;
  std::size_t end = 0;
  const auto take = [&](std::int64_t elements, DType type) {
    const std::size_t begin = end;
    end += Aligned(BytesOf(elements, type));
    return begin;
  };
  const std::size_t q_at = take(q_elements, p.dtype), k_at = take(keys * p.head_dim, p.dtype);
  const std::size_t v_at = take(keys * p.head_dim_v, p.dtype);
  const std::size_t dout_at = take(backward ? outs : 0, call.dout.dtype);
  results_at_.clear();
  for (const TensorView& result : ResultsOf(p, call)) results_at_.push_back(take(result.Elements(), DType::kF32));
  Resize(end);

  const auto same = [](std::int64_t b) { return b; };
  const auto cached = [&](std::int64_t b) {
    return args.cache_batch_idx ? std::int64_t{*args.cache_batch_idx->At<std::int32_t>(b)} : b;
  };
  CopyRows(args.q, p.batch, same, map_ + q_at);
  CopyRows(args.k, p.batch, cached, map_ + k_at);
  CopyRows(args.v, p.batch, cached, map_ + v_at);
  if (backward) CopyRows(call.dout, p.batch, same, map_ + dout_at);
  return nlohmann::json{{"dtype", Name(p.dtype)},
                        {"backward", backward},
                        {"b", p.batch},
                        {"sq", p.seq_q},
                        {"skv", p.seq_kv},
                        {"hq", p.heads_q},
                        {"hkv", p.heads_kv},
                        {"d", p.head_dim},
                        {"dv", p.head_dim_v},
                        {"scale", p.Scale()},
                        {"softcap", p.options.softcap},
                        {"causal", p.options.causal},
                        {"window_left", OrNull(p.options.window_left)},
                        {"window_right", OrNull(p.options.window_right)},
                        {"q", q_at},
                        {"k", k_at},
                        {"v", v_at},
                        {"dout", dout_at},
                        {"dout_dtype", Name(backward ? call.dout.dtype : p.dtype)},
                        {"out", results_at_.front()},
                        {"results", results_at_},
                        {"bytes", bytes_}}
      .dump();
}

void PeerMemory::PoisonResults() {
  auto* begin = reinterpret_cast<float*>(map_ + results_at_.front());
  std::fill_n(begin, (bytes_ - results_at_.front()) / sizeof(float), std::numeric_limits<float>::quiet_NaN());
}

template <class Scale>
double PeerMemory::Difference(const std::vector<TensorView>& results, Scale scale) const {
  double worst = 0;
  for (std::size_t n = 0; n < results.size(); ++n) {
    const TensorView& ours = results[n];
    const auto* theirs = reinterpret_cast<const float*>(map_ + results_at_[n]);
    for (std::int64_t b = 0; b < ours.shape[0]; ++b) {
      for (std::int64_t s = 0; s < ours.shape[1]; ++s) {
        for (std::int64_t h = 0; h < ours.shape[2]; ++h) {
          const void* row = ours.At(b, s, h, std::int64_t{0});
          for (std::int64_t c = 0; c < ours.shape[3]; ++c) {
            const double own = LoadFloat(row, ours.dtype, c);
            const double difference = std::fabs(static_cast<double>(*theirs++) - own) / scale(own);
            if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
            worst = std::max(worst, difference);
          }
        }
      }
    }
  }
  return worst;
}

double PeerMemory::DifferenceFrom(const std::vector<TensorView>& results) const {
  return Difference(results, [](double) { return 1.0; });
}

double PeerMemory::RelativeDifferenceFrom(const std::vector<TensorView>& results) const {
  return Difference(results, [](double ours) { return std::max(1.0, std::fabs(ours)); });
}

}  // namespace regard::cli
