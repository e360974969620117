// MergeStates: m = max(l_a, l_b), w = exp(l - m), o = (w_a o_a + w_b o_b) / (w_a + w_b), l = m + log(w_a + w_b)
// (docs/semantics.md, "Merging partial results"). The two weights of a row are worked out in f64 and rounded once, the
// values are weighed in f32; on a GPU both in f32 (src/cuda/merge.cc). Owns nothing; out may be o_a and lse_out may be
// lse_a, element for element.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "regard/attention.h"
#include "regard/status.h"
#include "src/backend/byte_span.h"
#include "src/core/fp_mode.h"
#include "src/cuda/merge.h"

namespace regard {
namespace {

// (B, S, H, Dv) with lse (B, H, S), or (T, H, Dv) with lse (H, T).
struct Rows {
  std::int64_t batch, positions, heads, dim;
  bool packed;
  char* Out(const TensorView& t, std::int64_t b, std::int64_t i, std::int64_t h) const {
    return packed ? t.At<char>(i, h, 0) : t.At<char>(b, i, h, 0);
  }
  float* Lse(const TensorView& t, std::int64_t b, std::int64_t i, std::int64_t h) const {
    return packed ? t.At<float>(h, i) : t.At<float>(b, h, i);
  }
};

bool Overlap(const TensorView& a, const TensorView& b) {
  const std::optional<ByteSpan> x = SpanOf(a), y = SpanOf(b);  // both checked by RequireMemory
  return x->begin < y->end && y->begin < x->end;
}
bool SameView(const TensorView& a, const TensorView& b) {
  return a.data == b.data && a.dtype == b.dtype && a.rank == b.rank && a.shape == b.shape && a.stride == b.stride;
}

void RequireMemory(const char* field, const TensorView& t, bool written, Device device) {
  if (t.device.type != device.type || (device.type != DeviceType::kCpu && t.device.index != device.index)) {
    throw Error(field, "memory of another device", device.type == DeviceType::kCpu ? "host memory" : "memory of o_a's device");
  }
  const std::optional<ByteSpan> span = SpanOf(t);
  if (!span) throw Error(field, t.Describe(), "extents and strides that 64 bits can hold");
  if (span->begin >= span->end) return;
  if (t.data == nullptr) throw Error(field, "null data", "memory for " + t.Describe());
  if (reinterpret_cast<std::uintptr_t>(t.data) % SizeOf(t.dtype) != 0) {
    throw Error(field, "an address between two elements", "a multiple of " + std::to_string(SizeOf(t.dtype)) + " bytes");
  }
  for (int d = 0; d < t.rank; ++d) {
    const auto n = static_cast<std::size_t>(d);
    if (written && t.shape[n] > 1 && t.stride[n] == 0) throw Error(field, "stride 0", "an element of its own for each result");
  }
}

void RequireOut(const char* field, const TensorView& t, const TensorView& like, bool written) {
  if (t.rank != like.rank || !std::equal(t.shape.begin(), t.shape.begin() + like.rank, like.shape.begin())) {
    throw Error(field, t.Describe(), "the shape of o_a, " + like.Describe());
  }
  if (t.dtype != DType::kF32 && t.dtype != DType::kF16 && t.dtype != DType::kBF16) {
    throw Error(field, t.Describe(), "f32, f16 or bf16");
  }
  const auto last = static_cast<std::size_t>(t.rank - 1);
  if (t.shape[last] > 1 && t.stride[last] != 1) throw Error(field, t.Describe(), "a contiguous last dim");
  RequireMemory(field, t, written, like.device);
}

void RequireLse(const char* field, const TensorView& t, const Rows& r, bool written, Device device) {
  const bool fits = r.packed ? t.rank == 2 && t.shape[0] == r.heads && t.shape[1] == r.positions
                             : t.rank == 3 && t.shape[0] == r.batch && t.shape[1] == r.heads && t.shape[2] == r.positions;
  if (!fits || t.dtype != DType::kF32) {
    throw Error(field, t.Describe(), r.packed ? "f32 (H, T)" : "f32 (B, H, S)");
  }
  RequireMemory(field, t, written, device);
}

void RequireApart(const TensorView& o_a, const TensorView& lse_a, const TensorView& o_b, const TensorView& lse_b,
                  const TensorView& out, const TensorView& lse_out) {
  const char* expected = "no overlap (out may be o_a, lse_out may be lse_a)";
  if ((!SameView(out, o_a) && Overlap(out, o_a)) || Overlap(out, o_b) || Overlap(out, lse_a) || Overlap(out, lse_b)) {
    throw Error("out", "overlaps an input", expected);
  }
  if ((!SameView(lse_out, lse_a) && Overlap(lse_out, lse_a)) || Overlap(lse_out, lse_b) || Overlap(lse_out, o_a) ||
      Overlap(lse_out, o_b) || Overlap(lse_out, out)) {
    throw Error("lse_out", "overlaps another tensor", expected);
  }
}

// Elements [0, n) of a row of f32, f16 or bf16, n <= kChunk, one type at a time so that the loops vectorise.
constexpr std::int64_t kChunk = 256;

void Load(const char* from, DType t, std::int64_t n, float* to) {
  const auto* halves = reinterpret_cast<const std::uint16_t*>(from);
  if (t == DType::kF32) {
    std::copy_n(reinterpret_cast<const float*>(from), n, to);
  } else if (t == DType::kBF16) {
    for (std::int64_t c = 0; c < n; ++c) to[c] = std::bit_cast<float>(static_cast<std::uint32_t>(halves[c]) << 16);
  } else {
    for (std::int64_t c = 0; c < n; ++c) to[c] = F16ToFloat(halves[c]);
  }
}

void Store(const float* from, DType t, std::int64_t n, char* to) {
  auto* halves = reinterpret_cast<std::uint16_t*>(to);
  if (t == DType::kF32) {
    std::copy_n(from, n, reinterpret_cast<float*>(to));
  } else if (t == DType::kBF16) {
    for (std::int64_t c = 0; c < n; ++c) halves[c] = FloatToBF16(from[c]);
  } else {
    for (std::int64_t c = 0; c < n; ++c) halves[c] = FloatToF16(from[c]);
  }
}

struct Weights {
  float a, b, lse;
  bool has_a, has_b;  // false: the identity, whose values are not read
};

Weights WeightsOf(double l_a, double l_b) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  Weights w{0.0f, 0.0f, -std::numeric_limits<float>::infinity(), l_a != kNone, l_b != kNone};
  if (!w.has_a && !w.has_b) return w;
  const double m = std::isnan(l_a) || l_a > l_b ? l_a : l_b;  // NaN in either stays
  const double w_a = w.has_a ? std::exp(l_a - m) : 0, w_b = w.has_b ? std::exp(l_b - m) : 0, sum = w_a + w_b;
  w.a = static_cast<float>(w_a / sum);
  w.b = static_cast<float>(w_b / sum);
  w.lse = static_cast<float>(m + std::log(sum));
  return w;
}

// x = w_a x + w_b y.
void Weigh(const Weights& w, const float* y, std::int64_t n, float* x) {
  if (!w.has_a) std::fill_n(x, n, 0.0f);
  for (std::int64_t c = 0; c < n && w.has_a; ++c) x[c] *= w.a;
  for (std::int64_t c = 0; c < n && w.has_b; ++c) x[c] += w.b * y[c];
}

}  // namespace

void MergeStates(const TensorView& o_a, const TensorView& lse_a, const TensorView& o_b, const TensorView& lse_b,
                 const TensorView& out, const TensorView& lse_out, Stream stream) {
  if (o_a.device.type == DeviceType::kOpenCl) throw Error("o_a", "memory of opencl", "host memory, or a GPU's by CUDA");
  if (o_a.rank != 3 && o_a.rank != 4) throw Error("o_a", o_a.Describe(), "(B, S, H, Dv) or (T, H, Dv)");
  const bool packed = o_a.rank == 3;
  const Rows r{packed ? 1 : o_a.shape[0], o_a.shape[packed ? 0 : 1], o_a.shape[packed ? 1 : 2],
               o_a.shape[packed ? 2 : 3], packed};
  RequireOut("o_a", o_a, o_a, false);
  RequireOut("o_b", o_b, o_a, false);
  RequireOut("out", out, o_a, true);
  RequireLse("lse_a", lse_a, r, false, o_a.device);
  RequireLse("lse_b", lse_b, r, false, o_a.device);
  RequireLse("lse_out", lse_out, r, true, o_a.device);
  RequireApart(o_a, lse_a, o_b, lse_b, out, lse_out);
  if (o_a.device.type == DeviceType::kCuda) return cuda::Merge(o_a, lse_a, o_b, lse_b, out, lse_out, stream);

  DefaultExecutor().For(r.batch * r.positions, [&](std::int64_t n, int) {
    const FpModeGuard mode;
    const std::int64_t b = n / r.positions, i = n % r.positions;
    alignas(64) float x[kChunk], y[kChunk];
    for (std::int64_t h = 0; h < r.heads; ++h) {
      const Weights w = WeightsOf(*r.Lse(lse_a, b, i, h), *r.Lse(lse_b, b, i, h));
      const char *from_a = r.Out(o_a, b, i, h), *from_b = r.Out(o_b, b, i, h);
      char* to = r.Out(out, b, i, h);
      for (std::int64_t c = 0; c < r.dim; c += kChunk) {
        const std::int64_t count = std::min(kChunk, r.dim - c);
        Load(from_a + c * static_cast<std::int64_t>(SizeOf(o_a.dtype)), o_a.dtype, count, x);
        Load(from_b + c * static_cast<std::int64_t>(SizeOf(o_b.dtype)), o_b.dtype, count, y);
        Weigh(w, y, count, x);
        Store(x, out.dtype, count, to + c * static_cast<std::int64_t>(SizeOf(out.dtype)));
      }
      *r.Lse(lse_out, b, i, h) = w.lse;
    }
  });
}

}  // namespace regard
