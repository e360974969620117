// Normal numbers by inversion: 16 random bits pick one of 65536 quantiles of N(0, 1) from a table of f32. Four numbers a
// SplitMix64 step, about a nanosecond each; the tails end at 4.2 deviations.
#include "src/cases/random.h"

#include <cmath>
#include <cstddef>
#include <vector>

namespace regard::cases {
namespace {

constexpr std::size_t kQuantiles = 65536;

// Quantile n is the x with Phi(x) = (n + 1/2) / 65536: Newton's method from the quantile before.
std::vector<float> MakeQuantiles() {
  constexpr double kSqrtTwoPi = 2.5066282746310002;
  std::vector<float> table(kQuantiles);
  double x = 0;
  for (std::size_t n = kQuantiles / 2; n < kQuantiles; ++n) {
    const double upper_tail = 1.0 - (static_cast<double>(n) + 0.5) / kQuantiles;
    for (int step = 0; step < 8; ++step) {
      const double excess = 0.5 * std::erfc(x / std::sqrt(2.0)) - upper_tail;
      const double move = excess * kSqrtTwoPi * std::exp(0.5 * x * x);
      x += move;
      if (std::fabs(move) < 1e-9) break;
    }
    table[n] = static_cast<float>(x);
    table[kQuantiles - 1 - n] = static_cast<float>(-x);
  }
  return table;
}

const float* Quantiles() {
  static const std::vector<float> table = MakeQuantiles();
  return table.data();
}

template <class Store>
void Fill(std::int64_t n, float deviation, std::uint64_t key, Store store) noexcept {
  const float* table = Quantiles();
  for (std::int64_t i = 0; i < n; i += 4) {
    std::uint64_t bits = Mix(key + static_cast<std::uint64_t>(i / 4) * 0x9e3779b97f4a7c15u);
    for (std::int64_t lane = i; lane < i + 4 && lane < n; ++lane, bits >>= 16) {
      store(lane, table[bits & 0xffff] * deviation);
    }
  }
}

}  // namespace

void FillNormal(void* data, DType dtype, std::int64_t n, double deviation, std::uint64_t key) noexcept {
  const auto scale = static_cast<float>(deviation);
  switch (dtype) {
    case DType::kF32: {
      auto* out = static_cast<float*>(data);
      return Fill(n, scale, key, [=](std::int64_t i, float x) { out[i] = x; });
    }
    case DType::kBF16: {
      auto* out = static_cast<std::uint16_t*>(data);
      return Fill(n, scale, key, [=](std::int64_t i, float x) { out[i] = FloatToBF16(x); });
    }
    default: return Fill(n, scale, key, [=](std::int64_t i, float x) { StoreFloat(data, dtype, i, x); });
  }
}

}  // namespace regard::cases
