// MergeStates: m = max(l_a, l_b), w = exp(l - m), o = (w_a o_a + w_b o_b) / (w_a + w_b), l = m + log(w_a + w_b)
// (docs/semantics.md, "Merging partial results"), in f32 with the two weights worked out in f64.
#include <cmath>
#include <limits>
#include <string>

#include "regard/attention.h"
#include "src/core/fp_mode.h"

namespace regard {
namespace {

// (B, S, H, Dv) with lse (B, H, S), or (T, H, Dv) with lse (H, T): rows by batch, position and head.
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

struct Span {
  const char *begin, *end;
};
Span Touched(const TensorView& t) {
  std::int64_t lo = 0, hi = 0;
  for (int d = 0; d < t.rank; ++d) {
    const std::int64_t reach = (t.shape[static_cast<std::size_t>(d)] - 1) * t.stride[static_cast<std::size_t>(d)];
    (reach < 0 ? lo : hi) += reach;
  }
  const auto size = static_cast<std::int64_t>(SizeOf(t.dtype));
  const char* base = static_cast<const char*>(t.data);
  return {base + lo * size, base + (hi + 1) * size};
}
bool Overlap(const TensorView& a, const TensorView& b) {
  if (a.Elements() == 0 || b.Elements() == 0) return false;
  const Span x = Touched(a), y = Touched(b);
  return x.begin < y.end && y.begin < x.end;
}
bool SameView(const TensorView& a, const TensorView& b) {
  return a.data == b.data && a.dtype == b.dtype && a.rank == b.rank && a.shape == b.shape && a.stride == b.stride;
}

void RequireOut(const char* field, const TensorView& t, const TensorView& like) {
  if (t.rank != like.rank || t.shape != like.shape) throw Error(field, t.Describe(), "the shape of o_a, " + like.Describe());
  if (t.dtype != DType::kF32 && t.dtype != DType::kF16 && t.dtype != DType::kBF16) {
    throw Error(field, t.Describe(), "f32, f16 or bf16");
  }
  const auto last = static_cast<std::size_t>(t.rank - 1);
  if (t.shape[last] > 1 && t.stride[last] != 1) throw Error(field, t.Describe(), "a contiguous last dim");
  if (t.Elements() > 0 && t.data == nullptr) throw Error(field, "null data", "memory for " + t.Describe());
}
void RequireLse(const char* field, const TensorView& t, const Rows& r) {
  const bool fits = r.packed ? t.rank == 2 && t.shape[0] == r.heads && t.shape[1] == r.positions
                             : t.rank == 3 && t.shape[0] == r.batch && t.shape[1] == r.heads && t.shape[2] == r.positions;
  if (!fits || t.dtype != DType::kF32) {
    throw Error(field, t.Describe(), r.packed ? "f32 (H, T)" : "f32 (B, H, S)");
  }
  if (t.Elements() > 0 && t.data == nullptr) throw Error(field, "null data", "memory for " + t.Describe());
}

}  // namespace

void MergeStates(const TensorView& o_a, const TensorView& lse_a, const TensorView& o_b, const TensorView& lse_b,
                 const TensorView& out, const TensorView& lse_out) {
  if (o_a.rank != 3 && o_a.rank != 4) throw Error("o_a", o_a.Describe(), "(B, S, H, Dv) or (T, H, Dv)");
  const bool packed = o_a.rank == 3;
  const Rows r{packed ? 1 : o_a.shape[0], o_a.shape[packed ? 0 : 1], o_a.shape[packed ? 1 : 2],
               o_a.shape[packed ? 2 : 3], packed};
  RequireOut("o_a", o_a, o_a);
  RequireOut("o_b", o_b, o_a);
  RequireOut("out", out, o_a);
  RequireLse("lse_a", lse_a, r);
  RequireLse("lse_b", lse_b, r);
  RequireLse("lse_out", lse_out, r);
  const char* expected = "no overlap (out may be o_a, lse_out may be lse_a)";
  if ((!SameView(out, o_a) && Overlap(out, o_a)) || Overlap(out, o_b) || Overlap(out, lse_a) || Overlap(out, lse_b)) {
    throw Error("out", "overlaps an input", expected);
  }
  if ((!SameView(lse_out, lse_a) && Overlap(lse_out, lse_a)) || Overlap(lse_out, lse_b) || Overlap(lse_out, o_a) ||
      Overlap(lse_out, o_b) || Overlap(lse_out, out)) {
    throw Error("lse_out", "overlaps another tensor", expected);
  }
  DefaultExecutor().For(r.batch * r.positions, [&](std::int64_t n, int) {
    const FpModeGuard mode;
    const std::int64_t b = n / r.positions, i = n % r.positions;
    for (std::int64_t h = 0; h < r.heads; ++h) {
      const double a = *r.Lse(lse_a, b, i, h), c = *r.Lse(lse_b, b, i, h);
      const double m = a < c || std::isnan(c) ? c : a;
      const bool empty = m == -std::numeric_limits<double>::infinity();
      const double wa = empty ? 0 : std::exp(a - m), wb = empty ? 0 : std::exp(c - m), sum = wa + wb;
      const float fa = empty ? 0.0f : static_cast<float>(wa / sum), fb = empty ? 0.0f : static_cast<float>(wb / sum);
      const void *from_a = r.Out(o_a, b, i, h), *from_b = r.Out(o_b, b, i, h);
      void* to = r.Out(out, b, i, h);
      for (std::int64_t d = 0; d < r.dim; ++d) {
        // A weight of 0 keeps a state's NaN padding out.
        const float x = fa == 0.0f ? 0.0f : LoadFloat(from_a, o_a.dtype, d) * fa;
        const float y = fb == 0.0f ? 0.0f : LoadFloat(from_b, o_b.dtype, d) * fb;
        StoreFloat(to, out.dtype, d, x + y);
      }
      *r.Lse(lse_out, b, i, h) = static_cast<float>(empty ? m : m + std::log(sum));
    }
  });
}

}  // namespace regard
