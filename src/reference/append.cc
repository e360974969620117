// Append: token t of k_new and v_new of sequence b goes to position cache_seqlens[b] + t of its cache, k rotated by
// base + t first. One rounding, to the cache's element type: an fp8 cache stores x / descale (f32 division), saturated;
// tokens that come in the cache's own type are in its units already and are not divided.
#include <vector>

#include "src/core/fp_mode.h"
#include "src/reference/reference.h"
#include "src/reference/rotary.h"

namespace regard::reference {
namespace {

// Stores x[0, dim), which came in type `from`, as key `position` of one head of a cache.
void StoreToken(const Problem& p, const AttentionArgs& args, const Sequence& s, const TensorView& cache,
                const std::optional<TensorView>& descale, std::int64_t b, std::int64_t head, std::int64_t position,
                const std::vector<float>& x, DType from) {
  const std::int64_t first = KvTokenOffset(p, args, s, cache, position) + head * KvHeadStride(p, cache);
  const bool scaled = descale && cache.dtype != from;
  const float divisor = scaled ? *descale->At<float>(b, head) : 1.0f;
  for (std::size_t c = 0; c < x.size(); ++c) {
    StoreFloat(cache.data, cache.dtype, first + static_cast<std::int64_t>(c), x[c] / divisor);
  }
}

}  // namespace

void AppendKv(const Problem& p, const AttentionArgs& args, const std::vector<Sequence>& sequences) {
  if (!args.k_new) return;
  const FpModeGuard mode;
  const auto load = [](const TensorView& t, const Sequence& s, std::int64_t b, std::int64_t token, std::int64_t head,
                       std::int64_t dim) {
    const void* row = t.rank == 3 ? t.At(s.new_row + token, head) : t.At(b, token, head);
    std::vector<float> x(dim);
    for (std::int64_t c = 0; c < dim; ++c) x[c] = LoadFloat(row, t.dtype, c);
    return x;
  };
  for (std::int64_t b = 0; b < BatchOf(args); ++b) {
    const Sequence& s = sequences[b];
    for (std::int64_t t = 0; t < s.append_count; ++t) {
      for (std::int64_t head = 0; head < p.heads_kv; ++head) {
        std::vector<float> k = load(*args.k_new, s, b, t, head, p.head_dim);
        if (p.options.rotary != Rotary::kNone) {
          Rotate(k.data(), p.options.rotary, *args.rotary_cos, *args.rotary_sin, s.rotary_base + t);
        }
        StoreToken(p, args, s, args.k, args.k_descale, b, head, s.append_begin + t, k, args.k_new->dtype);
        const std::vector<float> v = load(*args.v_new, s, b, t, head, p.head_dim_v);
        StoreToken(p, args, s, args.v, args.v_descale, b, head, s.append_begin + t, v, args.v_new->dtype);
      }
    }
  }
}

}  // namespace regard::reference
