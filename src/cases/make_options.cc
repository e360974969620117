// Tensors and run-time values of a generated case's options: left padding, offsets, ALiBi, bias, mask, sinks, descales,
// rotary tables, functions, dropout.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "regard/status.h"
#include "src/cases/builder.h"
#include "src/cases/parallel.h"

namespace regard::cases {
namespace {

constexpr double kLargeBytes = 64 << 20;  // a score tensor beyond this is broadcast
constexpr double kSmallBytes = 1 << 20;   // one below this has its own values for every sequence (even seeds)

// The built-in score_mod: adds -1/8, 0, 1/8 or 1/4, turning with j - i + h.
float ShiftScore(const void*, float s, std::int64_t, std::int64_t h, std::int64_t i, std::int64_t j) {
  return s + 0.125f * (static_cast<float>((j - i + h) & 3) - 1.0f);
}
// The built-in mask_mod: hides every fourth key, another one in each row and sequence.
bool HideFourth(const void*, std::int64_t b, std::int64_t, std::int64_t i, std::int64_t j) {
  return ((i + j + b) & 3) != 3;
}

void FillUniform(const TensorView& view, double lo, double hi, std::uint64_t key) {
  for (std::int64_t n = 0; n < view.Elements(); ++n) {
    const double u = Uniform(key + static_cast<std::uint64_t>(n));
    StoreFloat(view.data, view.dtype, n, static_cast<float>(lo + (hi - lo) * u));
  }
}

}  // namespace

// (B|1, Hq|1, Sq|1, Skv), as large as its size allows; normal numbers, or a mask that hides a share of the keys.
TensorView Builder::MakeScoreTensor(DType dtype, Stream stream) {
  const double plane = static_cast<double>(p_.seq_q) * static_cast<double>(p_.seq_kv) * static_cast<double>(SizeOf(dtype));
  const double heads_bytes = plane * static_cast<double>(p_.heads_q);
  const bool by_row = plane <= 4 * kLargeBytes;
  const bool by_head = heads_bytes <= kLargeBytes;
  const bool by_sequence = rare() && heads_bytes * static_cast<double>(p_.batch) <= kSmallBytes;
  const std::int64_t d0 = by_sequence ? p_.batch : 1, d1 = by_head ? p_.heads_q : 1, d2 = by_row ? p_.seq_q : 1;
  const TensorView view = NewTensor(dtype, {d0, d1, d2, p_.seq_kv});
  const std::uint8_t attend = dtype == DType::kU8 ? 255 : 1;
  ParallelFor(d0 * d1 * d2, static_cast<double>(view.Elements()), [&](std::int64_t row) {
    auto* at = static_cast<std::byte*>(view.data) + row * p_.seq_kv * static_cast<std::int64_t>(SizeOf(dtype));
    const std::uint64_t key = Key(p_.seed, stream, row);
    if (IsFloat(dtype)) return FillNormal(at, dtype, p_.seq_kv, 1, key);
    for (std::int64_t j = 0; j < p_.seq_kv; ++j) {
      const bool hidden = Uniform(key + static_cast<std::uint64_t>(j)) < p_.mask_density;
      at[j] = static_cast<std::byte>(hidden ? 0 : attend);
    }
  });
  return view;
}

void Builder::MakeRotary() {
  if (p_.head_dim < 2) throw Error("rotary", "with d=1", "d of at least 2: rotary turns pairs");
  const std::int64_t half = rare() ? std::max<std::int64_t>(1, p_.head_dim / 4) : p_.head_dim / 2;
  std::vector<std::int64_t> bases;
  std::int64_t positions = 1;
  for (std::size_t b = 0; b < seq_kv_.size(); ++b) {
    const std::int64_t cached = seq_kv_[b] - append_[b];
    const std::uint64_t key = Key(p_.seed, Stream::kOffset, static_cast<std::int64_t>(b), 1);
    bases.push_back(rare() ? cached + UniformInt(key, 0, 3) : cached);
    positions = std::max(positions, bases.back() + std::max(p_.seq_q, append_[b]));
  }
  if (rare()) args_.rotary_seqlens = NewInts(bases);
  const DType dtype = rare() && !IsFp8(p_.dtype) ? p_.dtype : DType::kF32;
  args_.rotary_cos = NewTensor(dtype, {positions, half});
  args_.rotary_sin = NewTensor(dtype, {positions, half});
  for (std::int64_t t = 0; t < positions; ++t) {
    for (std::int64_t c = 0; c < half; ++c) {
      const double frequency = std::pow(10000.0, -static_cast<double>(c) / static_cast<double>(half));
      const double angle = static_cast<double>(t) * frequency;
      StoreFloat(args_.rotary_cos->data, dtype, t * half + c, static_cast<float>(std::cos(angle)));
      StoreFloat(args_.rotary_sin->data, dtype, t * half + c, static_cast<float>(std::sin(angle)));
    }
  }
}

void Builder::MakeOptions() {
  const std::uint64_t seed = p_.seed;
  if (p_.leftpad) args_.leftpad = NewInts(leftpad_);
  if (p_.q_offset) {
    std::vector<std::int64_t> offsets;
    for (std::size_t b = 0; b < seq_q_.size(); ++b) {
      const std::int64_t aligned = std::max<std::int64_t>(0, seq_kv_[b] - seq_q_[b]);
      offsets.push_back(UniformInt(Key(seed, Stream::kOffset, static_cast<std::int64_t>(b)), -1, aligned + 1));
    }
    args_.q_offset = NewInts(offsets);
  }
  if (p_.alibi) {
    const std::int64_t rows = rare() ? p_.batch : 1;
    TensorView slopes = NewTensor(DType::kF32, {rows, p_.heads_q});
    for (std::int64_t n = 0; n < rows * p_.heads_q; ++n) {
      const std::int64_t h = n % p_.heads_q, b = n / p_.heads_q;
      const double slope = std::exp2(-8.0 * static_cast<double>(h + 1) / static_cast<double>(p_.heads_q));
      StoreFloat(slopes.data, DType::kF32, n, static_cast<float>(slope * (1 + 0.25 * static_cast<double>(b % 3))));
    }
    if (!rare()) slopes = TensorView::Contiguous(slopes.data, DType::kF32, {p_.heads_q});
    args_.alibi_slopes = slopes;
  }
  const bool narrow = p_.dtype == DType::kF16 || p_.dtype == DType::kBF16;
  if (p_.bias) args_.bias = MakeScoreTensor(narrow ? p_.dtype : DType::kF32, Stream::kBias);
  if (p_.mask) args_.mask = MakeScoreTensor(rare() ? DType::kU8 : DType::kBool, Stream::kMask);
  if (p_.sink) {
    args_.sink = NewTensor(narrow && rare() ? p_.dtype : DType::kF32, {p_.heads_q});
    FillNormal(args_.sink->data, args_.sink->dtype, p_.heads_q, 1, Key(seed, Stream::kSink));
  }
  const auto descale = [&](std::int64_t which) {
    const TensorView view = NewTensor(DType::kF32, {p_.batch, p_.heads_kv});
    FillUniform(view, 0.5, 1.5, Key(seed, Stream::kDescale, which));
    return view;
  };
  if (IsFp8(p_.dtype)) args_.q_descale = descale(0);
  if (IsFp8(p_.kv_dtype)) {
    args_.k_descale = descale(1);
    args_.v_descale = descale(2);
  }
  if (p_.options.rotary != Rotary::kNone) MakeRotary();
  if (p_.score_mod) args_.score_mod = {ShiftScore, nullptr};
  if (p_.mask_mod) args_.mask_mod = {HideFourth, nullptr};
  args_.dropout_seed = Mix(seed);
  args_.dropout_offset = rare() ? Mix(seed + 1) : seed;
}

}  // namespace regard::cases
