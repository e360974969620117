// Written memory stays apart: out, lse and (where the call appends) k and v, or the gradients of a backward call, overlap
// neither themselves, nor each other, nor any input. The test is cheap and errs on the safe side: two views are apart if the byte intervals they reach are,
// or if they are interleaved slices of one tensor (equal strides, as k = kv[:, 0] and v = kv[:, 1]).
#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "regard/status.h"
#include "src/problem/checks.h"

namespace regard::checks {
namespace {

constexpr Member kMembers[] = {
    {"lse", &AttentionArgs::lse},
    {"qv", &AttentionArgs::qv},
    {"cu_seqlens_q", &AttentionArgs::cu_seqlens_q},
    {"cu_seqlens_kv", &AttentionArgs::cu_seqlens_kv},
    {"seqused_q", &AttentionArgs::seqused_q},
    {"seqused_kv", &AttentionArgs::seqused_kv},
    {"seqlens_kv", &AttentionArgs::seqlens_kv},
    {"block_table", &AttentionArgs::block_table},
    {"kv_indptr", &AttentionArgs::kv_indptr},
    {"kv_indices", &AttentionArgs::kv_indices},
    {"kv_last_page_len", &AttentionArgs::kv_last_page_len},
    {"q_offset", &AttentionArgs::q_offset},
    {"leftpad", &AttentionArgs::leftpad},
    {"k_new", &AttentionArgs::k_new},
    {"v_new", &AttentionArgs::v_new},
    {"cu_seqlens_new", &AttentionArgs::cu_seqlens_new},
    {"cache_seqlens", &AttentionArgs::cache_seqlens},
    {"cache_batch_idx", &AttentionArgs::cache_batch_idx},
    {"rotary_cos", &AttentionArgs::rotary_cos},
    {"rotary_sin", &AttentionArgs::rotary_sin},
    {"rotary_seqlens", &AttentionArgs::rotary_seqlens},
    {"alibi_slopes", &AttentionArgs::alibi_slopes},
    {"bias", &AttentionArgs::bias},
    {"mask", &AttentionArgs::mask},
    {"sink", &AttentionArgs::sink},
    {"q_descale", &AttentionArgs::q_descale},
    {"k_descale", &AttentionArgs::k_descale},
    {"v_descale", &AttentionArgs::v_descale},
};

struct NamedView {
  const char* name;
  const TensorView* view;
  ByteSpan bytes;
};

// A dim as steps of `stride` bytes.
struct Step {
  std::uint64_t stride = 0, count = 0;
};

// True if no two index tuples can meet: each stride clears everything that the smaller ones reach.
bool Nested(Step* steps, int n, std::uint64_t element_bytes) {
  for (int d = 1; d < n; ++d) {  // insertion sort by stride: at most six steps
    for (int e = d; e > 0 && steps[e].stride < steps[e - 1].stride; --e) std::swap(steps[e], steps[e - 1]);
  }
  std::uint64_t reach = element_bytes;
  for (int d = 0; d < n; ++d) {
    if (steps[d].stride < reach) return false;
    reach += steps[d].stride * steps[d].count;
  }
  return true;
}

int StepsOf(const TensorView& v, Step* steps) {
  int n = 0;
  for (int d = 0; d < v.rank; ++d) {
    if (v.shape[d] <= 1) continue;
    const auto bytes = v.stride[d] * static_cast<std::int64_t>(SizeOf(v.dtype));
    steps[n++] = {static_cast<std::uint64_t>(bytes < 0 ? -bytes : bytes), static_cast<std::uint64_t>(v.shape[d] - 1)};
  }
  return n;
}

bool OverlapsItself(const TensorView& v) {
  Step steps[TensorView::kMaxRank];
  const int n = StepsOf(v, steps);
  return !Nested(steps, n, SizeOf(v.dtype));
}

// Two slices of one tensor: seen as one view with another dim of extent 2, that view must not overlap itself.
bool AreDisjointSlices(const NamedView& a, const NamedView& b) {
  const TensorView &x = *a.view, &y = *b.view;
  if (x.rank != y.rank || x.dtype != y.dtype) return false;
  TensorView joint = x;
  for (int d = 0; d < x.rank; ++d) {
    joint.shape[d] = std::max(x.shape[d], y.shape[d]);
    if (joint.shape[d] > 1 && (x.stride[d] != y.stride[d] || x.stride[d] < 0)) return false;
  }
  Step steps[TensorView::kMaxRank + 1];
  int n = StepsOf(joint, steps);
  const std::uintptr_t p = a.bytes.begin, q = b.bytes.begin;
  steps[n++] = {p < q ? q - p : p - q, 1};
  return Nested(steps, n, SizeOf(x.dtype));
}

// The views of a call, those that it writes first.
class Views {
 public:
  void Add(const char* name, const TensorView& v) noexcept {
    const ByteSpan bytes = TouchedBytes(v);
    if (!bytes.empty()) views_[count_++] = {name, &v, bytes};
  }
  // What was added so far is written.
  void EndWritten() noexcept { written_ = count_; }
  void Check() const {
    for (std::size_t w = 0; w < written_; ++w) {
      const NamedView& target = views_[w];
      if (OverlapsItself(*target.view)) {
        throw Error(std::string(target.name) + ".stride", "elements that share memory",
                    "strides that keep all elements apart: it is written");
      }
      for (std::size_t i = w + 1; i < count_; ++i) {
        const NamedView& other = views_[i];
        if (target.bytes.end <= other.bytes.begin || other.bytes.end <= target.bytes.begin) continue;
        if (AreDisjointSlices(target, other)) continue;
        throw Error(target.name, "memory that overlaps " + std::string(other.name),
                    "memory of its own: " + std::string(target.name) + " is written");
      }
    }
  }

 private:
  static constexpr std::size_t kMost = std::size(kMembers) + 4 + 7;  // q, k, v, out, and those of a backward call
  std::array<NamedView, kMost> views_;
  std::size_t count_ = 0, written_ = 0;
};

}  // namespace

std::span<const Member> OptionalMembers() noexcept {
  return kMembers;
}

ByteSpan TouchedBytes(const TensorView& v) noexcept {
  const auto size = static_cast<std::int64_t>(SizeOf(v.dtype));
  std::int64_t low = 0, high = size;
  for (int d = 0; d < v.rank; ++d) {
    if (v.shape[d] == 0) return {};
    if (v.shape[d] == 1) continue;
    const std::int64_t reach = (v.shape[d] - 1) * v.stride[d] * size;
    (reach < 0 ? low : high) += reach;
  }
  const auto address = reinterpret_cast<std::uintptr_t>(v.data);
  return {address + static_cast<std::uintptr_t>(low), address + static_cast<std::uintptr_t>(high)};
}

void CheckOverlap(const AttentionArgs& a) {
  Views views;
  views.Add("out", a.out);
  if (a.lse) views.Add("lse", *a.lse);
  views.EndWritten();
  views.Add("k", a.k);
  views.Add("v", a.v);
  if (a.k_new) views.EndWritten();
  views.Add("q", a.q);
  for (const Member& m : OptionalMembers()) {
    const auto& t = a.*m.view;
    if (t && m.view != &AttentionArgs::lse) views.Add(m.name, *t);
  }
  views.Check();
}

std::array<BackwardMember, 7> BackwardMembers(const BackwardArgs& a) noexcept {
  const auto maybe = [](const std::optional<TensorView>& t) { return t ? &*t : nullptr; };
  return {{{"dq", &a.dq},
           {"dk", &a.dk},
           {"dv", &a.dv},
           {"dbias", maybe(a.dbias)},
           {"dsink", maybe(a.dsink)},
           {"dout", &a.dout},
           {"dlse", maybe(a.dlse)}}};
}

void CheckBackwardOverlap(const BackwardArgs& a) {
  Views views;
  for (const BackwardMember& m : BackwardMembers(a)) {
    if (m.view == &a.dout) views.EndWritten();
    if (m.view) views.Add(m.name, *m.view);
  }
  views.Add("q", a.forward.q);
  views.Add("k", a.forward.k);
  views.Add("v", a.forward.v);
  views.Add("out", a.forward.out);
  for (const Member& m : OptionalMembers()) {
    if (const auto& t = a.forward.*m.view) views.Add(m.name, *t);
  }
  views.Check();
}

}  // namespace regard::checks
