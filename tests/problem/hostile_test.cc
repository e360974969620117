// Hostile calls: seeded random damage to tables, lengths and views of legal calls. ResolveArgs must throw Error, or
// leave sequences whose every address lies inside the tensors. Run under AddressSanitizer and UBSan this also shows
// that the checks themselves read nothing out of bounds: each buffer is exactly as long as its view.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "regard/status.h"
#include "src/problem/checks.h"
#include "tests/problem/sample_calls.h"

namespace regard {
namespace {

using testing::Call;

constexpr Call (*kCalls[])() = {testing::DenseCall, testing::PackedCall,      testing::BlockTableCall,
                                testing::CsrCall,   testing::DenseAppendCall, testing::PagedAppendCall};

class Damage {
 public:
  explicit Damage(std::uint64_t seed) : random_(seed) {}

  std::size_t Pick(std::size_t n) { return random_() % n; }

  // Overwrites one entry of one index tensor.
  void SpoilTable(Call& c) {
    std::vector<TensorView*> tables;
    for (TensorView* t : Views(c)) {
      if (t->dtype == DType::kI32 && t->Elements() > 0) tables.push_back(t);
    }
    TensorView& t = *tables[Pick(tables.size())];
    std::int32_t& entry = static_cast<std::int32_t*>(t.data)[Pick(static_cast<std::size_t>(t.Elements()))];
    const std::int32_t nasty[] = {INT32_MIN, INT32_MAX, -1, 0, 1 << 30, entry / 2};
    switch (Pick(4)) {
      case 0:
        entry = nasty[Pick(std::size(nasty))];
        break;
      case 1:
        entry = static_cast<std::int32_t>(random_());
        break;
      case 2:
        entry = static_cast<std::int32_t>(Pick(10));
        break;
      default:
        entry = static_cast<std::int32_t>(static_cast<std::uint32_t>(entry) + (Pick(2) ? 1u : ~0u));
        break;
    }
  }

  // Makes one view claim something else.
  void SpoilView(Call& c) {
    const std::vector<TensorView*> views = Views(c);
    TensorView& t = *views[Pick(views.size())];
    const auto dim = Pick(TensorView::kMaxRank);
    const std::int64_t nasty[] = {INT64_MIN, INT64_MAX, -1, 0, 1, INT64_C(1) << 47, INT64_C(1) << 62, 3};
    std::int64_t& extent = t.shape[dim];
    std::int64_t& stride = t.stride[dim];
    switch (Pick(10)) {
      case 0:
        extent = nasty[Pick(std::size(nasty))];
        break;
      case 1:
        extent += Pick(2) ? 1 : -1;
        break;
      case 2:
        stride = nasty[Pick(std::size(nasty))];
        break;
      case 3:
        stride = -stride;
        break;
      case 4:
        t.rank = static_cast<int>(Pick(9)) - 2;
        break;
      case 5:
        t.rank = Pick(2) ? INT32_MAX : INT32_MIN;
        break;
      case 6:
        t.dtype = static_cast<DType>(Pick(2) ? Pick(8) : Pick(256));
        break;
      case 7:
        t.data = Pick(2) ? nullptr : static_cast<char*>(t.data) + 1;
        break;
      case 8:
        t.device.type = static_cast<DeviceType>(Pick(4));
        break;
      default: {  // the memory of another view, where it is large enough to be a truthful claim
        const TensorView& other = *views[Pick(views.size())];
        const auto bytes = [](const TensorView& v) {
          return v.Elements() * static_cast<std::int64_t>(SizeOf(v.dtype));
        };
        if (bytes(other) >= bytes(t)) t.data = other.data;
        break;
      }
    }
  }

  // Drops one optional tensor.
  void Drop(Call& c) {
    std::vector<std::optional<TensorView>*> given;
    for (const checks::Member& m : checks::OptionalMembers()) {
      if (c.a.*m.view) given.push_back(&(c.a.*m.view));
    }
    given[Pick(given.size())]->reset();
  }

 private:
  static std::vector<TensorView*> Views(Call& c) {
    std::vector<TensorView*> views = {&c.a.q, &c.a.k, &c.a.v, &c.a.out};
    for (const checks::Member& m : checks::OptionalMembers()) {
      if (auto& t = c.a.*m.view) views.push_back(&*t);
    }
    return views;
  }

  std::mt19937_64 random_;
};

// Holds every address that a kernel would form from accepted sequences to the bytes of its view.
class AddressCheck {
 public:
  // `touch`: the views are the true ones, so that every byte may also be read.
  AddressCheck(const Call& c, bool touch) : c_(c), touch_(touch) {}

  void Run(const std::vector<Sequence>& sequences) {
    const AttentionArgs& a = c_.a;
    std::int64_t last_row = 0;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const Sequence& s = sequences[i];
      const auto b = static_cast<std::int64_t>(i);
      ASSERT_TRUE(!c_.p.varlen || s.q_row >= last_row) << "rows of two sequences overlap";
      ASSERT_TRUE(0 <= s.seq_q && s.seq_q <= s.rows && s.rows <= c_.p.seq_q);
      ASSERT_TRUE(0 <= s.leftpad && s.leftpad <= s.seq_kv && s.seq_kv <= c_.p.seq_kv);
      last_row = s.q_row + s.rows;
      for (std::int64_t r : Ends(s.rows)) {
        Inside(a.q, Row(a.q, b, s.q_row + r), c_.p.head_dim);
        Inside(a.out, Row(a.out, b, s.q_row + r), c_.p.head_dim_v);
      }
      if (c_.p.page_size && s.seq_kv > 0) {
        const bool csr = c_.p.table == TableKind::kCsr;
        const TensorView& table = csr ? *a.kv_indices : *a.block_table;
        const std::int64_t first = csr ? s.kv_row : s.kv_row * table.shape[1];
        Inside(table, first, 1);
        Inside(table, first + (s.seq_kv - 1) / *c_.p.page_size, 1);
      }
      for (std::int64_t j = 0; j < s.seq_kv; ++j) {
        for (std::int64_t h : Ends(c_.p.heads_kv)) {
          Inside(a.k, KvTokenOffset(c_.p, a, s, a.k, j) + h * KvHeadStride(c_.p, a.k), c_.p.head_dim);
          Inside(a.v, KvTokenOffset(c_.p, a, s, a.v, j) + h * KvHeadStride(c_.p, a.v), c_.p.head_dim_v);
        }
      }
      RunAppend(s, b);
      for (const auto& t : {a.bias, a.mask}) {
        if (!t || s.seq_q == 0 || s.seq_kv == 0) continue;
        const auto term = [&](int d, std::int64_t n) { return t->shape[d] == 1 ? 0 : n * t->stride[d]; };
        Inside(*t, term(0, b) + term(1, c_.p.heads_q - 1) + term(2, s.seq_q - 1) + term(3, s.seq_kv - 1), 1);
      }
    }
  }

 private:
  static std::vector<std::int64_t> Ends(std::int64_t n) {
    if (n <= 0) return {};
    return {0, n - 1};
  }
  std::int64_t Row(const TensorView& t, std::int64_t b, std::int64_t row) const {
    return c_.p.varlen ? row * t.stride[0] : b * t.stride[0] + row * t.stride[1];
  }
  void RunAppend(const Sequence& s, std::int64_t b) {
    const AttentionArgs& a = c_.a;
    if (!a.k_new) return;
    ASSERT_TRUE(0 <= s.append_begin && 0 <= s.append_count && s.append_begin + s.append_count == s.seq_kv);
    for (std::int64_t t = 0; t < s.append_count; ++t) {
      const bool packed = a.cu_seqlens_new.has_value();
      Inside(*a.k_new, packed ? (s.new_row + t) * a.k_new->stride[0] : b * a.k_new->stride[0] + t * a.k_new->stride[1],
             c_.p.head_dim);
      if (a.rotary_cos) Inside(*a.rotary_cos, (s.rotary_base + t) * a.rotary_cos->stride[0], a.rotary_cos->shape[1]);
      const std::int64_t slot = KvTokenOffset(c_.p, a, s, a.k, s.append_begin + t);
      ASSERT_TRUE(written_.insert(slot).second) << "a slot is written twice";
    }
  }
  void Inside(const TensorView& t, std::int64_t offset, std::int64_t elements) {
    const auto size = static_cast<std::int64_t>(SizeOf(t.dtype));
    const checks::ByteSpan span = checks::TouchedBytes(t);
    const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(t.data) + static_cast<std::uintptr_t>(offset * size);
    const std::uintptr_t end = begin + static_cast<std::uintptr_t>(elements * size);
    ASSERT_TRUE(span.begin <= begin && begin < end && end <= span.end) << t.Describe() << " offset " << offset;
    if (!touch_) return;
    const auto* bytes = reinterpret_cast<const volatile char*>(begin);
    for (std::uintptr_t n = 0; n < end - begin; ++n) static_cast<void>(bytes[n]);
  }

  const Call& c_;
  bool touch_;
  std::set<std::int64_t> written_;
};

// Runs `rounds` damaged copies of every sample call; returns {refused, accepted}.
template <class Spoil>
std::pair<int, int> Attack(int rounds, bool views_stay_true, Spoil&& spoil) {
  int refused = 0, accepted = 0;
  for (std::size_t kind = 0; kind < std::size(kCalls); ++kind) {
    for (int round = 0; round < rounds; ++round) {
      const std::uint64_t seed = kind * 1'000'000 + static_cast<std::uint64_t>(round);
      SCOPED_TRACE(::testing::Message() << "call " << kind << " seed " << seed);
      Damage damage(seed);
      Call c = kCalls[kind]();
      spoil(damage, c);
      try {
        const std::vector<Sequence> sequences = c.Resolve();
        ++accepted;
        AddressCheck(c, views_stay_true).Run(sequences);
      } catch (const Error& e) {
        ++refused;
        EXPECT_FALSE(e.field().empty() || e.value().empty() || e.expected().empty()) << e.what();
      }
      if (::testing::Test::HasFatalFailure()) return {refused, accepted};
    }
  }
  return {refused, accepted};
}

TEST(Hostile, SampleCallsAreLegalAndStayInsideTheirBuffers) {
  const auto [refused, accepted] = Attack(1, true, [](Damage&, Call&) {});
  EXPECT_EQ(refused, 0);
  EXPECT_EQ(accepted, static_cast<int>(std::size(kCalls)));
}

TEST(Hostile, SpoiledTablesAndLengthsAreRefusedOrHarmless) {
  const auto [refused, accepted] = Attack(1500, true, [](Damage& d, Call& c) {
    for (std::size_t n = 1 + d.Pick(3); n > 0; --n) d.SpoilTable(c);
  });
  EXPECT_GT(refused, 3000);
  EXPECT_GT(accepted, 300);
}

TEST(Hostile, SpoiledViewsAreRefusedOrHarmless) {
  const auto [refused, accepted] = Attack(1500, false, [](Damage& d, Call& c) { d.SpoilView(c); });
  EXPECT_GT(refused, 3000);
  EXPECT_GT(accepted, 300);
}

TEST(Hostile, DroppedTensorsAreRefusedOrHarmless) {
  const auto [refused, accepted] = Attack(100, true, [](Damage& d, Call& c) {
    d.Drop(c);
    if (d.Pick(2)) d.SpoilTable(c);
  });
  EXPECT_GT(refused, 300);
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace regard
