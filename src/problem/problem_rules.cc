// The rules on a problem alone (docs/problem.md, "What is legal"), and the default scale. Fields of errors are the
// words of the text form. Owns nothing; a legal problem costs no allocation.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "src/problem/lengths.h"
#include "src/problem/text_values.h"

namespace regard {
namespace {

constexpr std::int64_t kMaxHeadDim = 512;
constexpr std::int64_t kWidestElementBytes = 4;

[[noreturn]] void Fail(const char* field, const std::string& value, const std::string& expected) {
  throw Error(field, value, expected);
}
void RequireAtLeast(std::int64_t least, const char* field, std::int64_t value) {
  if (value < least) Fail(field, std::to_string(value), "at least " + std::to_string(least));
}
void RequireAtLeast(std::int64_t least, const char* field, std::optional<std::int64_t> value) {
  if (value) RequireAtLeast(least, field, *value);
}
void RequireHeadDim(const char* field, std::int64_t value) {
  if (value < 1 || value > kMaxHeadDim) Fail(field, std::to_string(value), "1 to 512");
}

// Text or C callers may bring an integer that is no enumerator.
template <class Enum>
void RequireEnum(const char* field, Enum value, Enum last) {
  const auto n = static_cast<unsigned>(value);
  if (n > static_cast<unsigned>(last)) Fail(field, std::to_string(n), "an enumerator of regard/problem.h");
}

void CheckEnums(const Problem& p) {
  RequireEnum("phase", p.phase, Phase::kBackward);
  RequireEnum("dtype", p.dtype, DType::kBool);
  RequireEnum("kv", p.kv_dtype, DType::kBool);
  RequireEnum("out", p.out_dtype.value_or(DType::kF32), DType::kBool);
  RequireEnum("grad", p.grad_dtype.value_or(DType::kF32), DType::kBool);
  RequireEnum("layout", p.layout, KvLayout::kHND);
  RequireEnum("table", p.table, TableKind::kCsr);
  RequireEnum("order", p.order, DenseOrder::kBHSD);
  RequireEnum("placement", p.placement, Placement::kRandom);
  RequireEnum("rotary", p.options.rotary, Rotary::kHalf);
  RequireEnum("invariance", p.options.invariance, Invariance::kNone);
}

void CheckHeads(const Problem& p) {
  RequireAtLeast(1, "hq", p.heads_q);
  RequireAtLeast(1, "hkv", p.heads_kv);
  if (p.heads_q % p.heads_kv == 0) return;
  const auto example = [](std::int64_t heads) { return "hq=" + std::to_string(heads); };
  const std::int64_t below = p.heads_q - p.heads_q % p.heads_kv;
  std::int64_t above = 0;
  const bool has_above = !__builtin_add_overflow(below, p.heads_kv, &above);
  std::string examples = below > 0 ? example(below) : "";
  if (has_above) examples += (examples.empty() ? "" : " or ") + example(above);
  Fail("hq", std::to_string(p.heads_q) + " is not a multiple of hkv " + std::to_string(p.heads_kv),
       "hq = n * hkv (for example " + examples + ")");
}

void CheckTypes(const Problem& p) {
  const auto kv_with_q = [&] { return std::string(Name(p.kv_dtype)) + " with dtype " + std::string(Name(p.dtype)); };
  if (!IsFloat(p.dtype)) Fail("dtype", std::string(Name(p.dtype)), "f32, f16, bf16, f8e4m3 or f8e5m2");
  if (IsFp8(p.dtype) && !IsFp8(p.kv_dtype)) Fail("kv", kv_with_q(), "f8e4m3 or f8e5m2: fp8 q needs fp8 k and v");
  if (p.kv_dtype != p.dtype && !IsFp8(p.kv_dtype)) Fail("kv", kv_with_q(), "the dtype of q, f8e4m3 or f8e5m2");
  const DType out = p.OutType();
  if (!IsFloat(out) || IsFp8(out)) Fail("out", std::string(Name(out)), "f32, f16 or bf16");
}

void CheckPaging(const Problem& p) {
  RequireAtLeast(1, "page", p.page_size);
  if (p.page_size) return;
  const char* expected = "page=N beside it: only paged keys have one";
  if (p.table != TableKind::kBlock) Fail("table", "csr without page", expected);
  if (p.layout != KvLayout::kNHD) Fail("layout", "HND without page", expected);
  if (p.placement != Placement::kOrdered) Fail("placement", "random without page", expected);
}

void CheckOptions(const Problem& p) {
  const AttentionOptions& o = p.options;
  RequireAtLeast(0, "window", o.window_left);
  RequireAtLeast(0, "window", o.window_right);
  RequireAtLeast(1, "chunk", o.chunk);
  if (!std::isfinite(o.softcap) || o.softcap < 0) {
    Fail("softcap", WriteDouble(o.softcap), "a finite number of at least 0 (0: off)");
  }
  if (o.scale && !std::isfinite(*o.scale)) Fail("scale", WriteDouble(*o.scale), "a finite number");
  if (!(o.dropout >= 0 && o.dropout <= 1)) Fail("dropout", WriteDouble(o.dropout), "a probability, 0 to 1");
  RequireAtLeast(0, "append", p.append);
  if (p.append && *p.append > p.seq_kv) {
    Fail("append", std::to_string(*p.append),
         "at most skv=" + std::to_string(p.seq_kv) + ", which counts the appended keys");
  }
  if (o.rotary != Rotary::kNone && !p.append) {
    Fail("rotary", "without append", "append=N beside it: rotary turns the tokens that a call appends");
  }
}

// What belongs to the backward pass is given there only, and what it cannot differentiate is not given there.
void CheckBackward(const Problem& p) {
  if (p.phase != Phase::kBackward) {
    const char* expected = "the phase backward: it says what gradients are";
    if (p.grad_dtype) Fail("grad", std::string(Name(*p.grad_dtype)) + " in a forward phase", expected);
    if (p.dlse) Fail("dlse", "in a forward phase", expected);
    if (p.dbias) Fail("dbias", "in a forward phase", expected);
    if (p.dsink) Fail("dsink", "in a forward phase", expected);
    return;
  }
  if (IsFp8(p.kv_dtype)) {
    Fail(IsFp8(p.dtype) ? "dtype" : "kv", std::string(Name(p.kv_dtype)) + " with phase backward",
         "f32, f16 or bf16: fp8 has no gradient; dequantise q, k and v first");
  }
  if (p.page_size) {
    Fail("page", std::to_string(*p.page_size) + " with phase backward",
         "no pages: gradients are of dense or packed k and v; gather the pages first");
  }
  if (p.append) {
    Fail("append", std::to_string(*p.append) + " with phase backward",
         "no append: it writes a cache in place; attend to the whole k and v instead");
  }
  if (p.qv) {
    Fail("qv", "with phase backward", "no qv: join q and qv, and k and v, into one q and k of D + Dv channels instead");
  }
  if (p.score_mod) {
    Fail("scoremod", "with phase backward", "no score_mod: its derivative is unknown; softcap, alibi and bias have one");
  }
  if (p.mask_mod) Fail("maskmod", "with phase backward", "no mask_mod: a boolean mask says the same");
  if (p.grad_dtype && *p.grad_dtype != DType::kF32 && *p.grad_dtype != p.dtype) {
    Fail("grad", std::string(Name(*p.grad_dtype)), p.dtype == DType::kF32 ? "f32" : "f32 or " + std::string(Name(p.dtype)));
  }
  if (p.dbias && !p.bias) Fail("dbias", "without bias", "bias beside it");
  if (p.dsink && !p.sink) Fail("dsink", "without sink", "sink beside it");
}

// One length for each sequence, none negative, none beyond the problem's longest.
void CheckLengths(const char* field, const LengthSpec& spec, const char* longest_field, std::int64_t longest,
                  std::int64_t batch) {
  if (spec.empty() && !spec.uniform_hi) return;
  const auto text = [&] { return Shown(WriteLengths(spec)); };
  if (spec.uniform_lo || spec.uniform_hi) {
    const bool whole = spec.uniform_lo && spec.uniform_hi && spec.runs.empty();
    if (!whole || *spec.uniform_lo > *spec.uniform_hi) {
      Fail(field, text(), "uniform(lo,hi) with lo <= hi, or a list of lengths");
    }
  } else {
    const bool counts = std::ranges::all_of(spec.runs, [](const LengthSpec::Run& run) { return run.count >= 1; });
    if (!counts) Fail(field, text(), "a count of at least 1 after each *");
    if (CountOf(spec) != batch) {
      Fail(field, text() + " (" + std::to_string(CountOf(spec)) + (CountOf(spec) == 1 ? " length)" : " lengths)"),
           "as many lengths as b=" + std::to_string(batch));
    }
  }
  if (batch > kMaxListedSequences) Fail("b", std::to_string(batch), "at most 16777216 where lengths are listed");
  if (spec.Min() < 0) Fail(field, text(), "lengths of at least 0");
  if (spec.Max() > longest) {
    Fail(field, text(), std::string("lengths of at most ") + longest_field + "=" + std::to_string(longest));
  }
}

// Offsets are 64-bit bytes: every tensor must end below 2^63. Empty dims count as 1, so that strides fit as well.
void CheckSize(const char* field, const char* product, std::initializer_list<std::int64_t> factors) {
  std::int64_t bytes = kWidestElementBytes;
  for (const std::int64_t factor : factors) {
    if (__builtin_mul_overflow(bytes, std::max<std::int64_t>(factor, 1), &bytes)) {
      Fail(field, std::string(product) + " overflows", "a tensor of less than 2^63 bytes");
    }
  }
}

void CheckSizes(const Problem& p) {
  const std::int64_t dim = std::max(p.head_dim, p.head_dim_v);
  CheckSize("sq", "b * sq * hq * d", {p.batch, p.seq_q, p.heads_q, dim});
  CheckSize("skv", "b * skv * hkv * d", {p.batch, p.seq_kv, p.heads_kv, dim});
  if (!p.page_size) return;
  const std::int64_t pages = p.seq_kv / *p.page_size + (p.seq_kv % *p.page_size != 0);
  CheckSize("page", "b * pages * page * hkv * d", {p.batch, pages, *p.page_size, p.heads_kv, dim});
}

}  // namespace

void Validate(const Problem& p) {
  CheckEnums(p);
  RequireAtLeast(0, "b", p.batch);
  RequireAtLeast(0, "sq", p.seq_q);
  RequireAtLeast(0, "skv", p.seq_kv);
  CheckHeads(p);
  RequireHeadDim("d", p.head_dim);
  RequireHeadDim("dv", p.head_dim_v);
  CheckTypes(p);
  CheckPaging(p);
  CheckOptions(p);
  CheckBackward(p);
  CheckSizes(p);
  CheckLengths("lens", p.lens, "skv", p.seq_kv, p.batch);
  CheckLengths("qlens", p.qlens, "sq", p.seq_q, p.batch);
  if (!std::isfinite(p.qscale) || p.qscale < 0) Fail("qscale", WriteDouble(p.qscale), "a finite number of at least 0");
  if (!(p.mask_density >= 0 && p.mask_density <= 1)) {
    Fail("mask", WriteDouble(p.mask_density), "a share of hidden keys, 0 to 1");
  }
  if (!p.mask && p.mask_density != 0) Fail("mask", WriteDouble(p.mask_density) + " without a mask", "0 without a mask");
}

double Problem::Scale() const noexcept {
  return options.scale.value_or(1.0 / std::sqrt(static_cast<double>(head_dim + (qv ? head_dim_v : 0))));
}

}  // namespace regard
