// The grid meets every axis that the check promises: types, head dims, lengths, groups, layouts, options, pairs.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "src/cases/grid.h"

namespace regard::cases {
namespace {

template <class Fn>
auto Seen(const std::vector<Problem>& grid, Fn&& of) {
  std::set<decltype(of(grid[0]))> seen;
  for (const Problem& p : grid) seen.insert(of(p));
  return seen;
}

// Options of a problem, as bits.
std::vector<bool> OptionsOf(const Problem& p) {
  const AttentionOptions& o = p.options;
  return {o.causal,       o.window_left || o.window_right, o.chunk.has_value(), o.softcap > 0,      o.scale.has_value(),
          p.alibi,        p.bias,                          p.mask,              p.sink,             p.leftpad,
          p.qv,           p.q_offset,                      p.score_mod,         p.mask_mod,         p.append.has_value(),
          p.qscale != 1,  o.rotary != Rotary::kNone};
}

TEST(Grid, EveryCaseIsLegalAndItsOwn) {
  const std::vector<Problem> all = Grid(GridSize::kAll);
  EXPECT_GT(all.size(), 2000u);
  std::set<std::string> texts;
  for (const Problem& p : all) {
    EXPECT_NO_THROW(Validate(p)) << Print(p);
    texts.insert(Print(p));
  }
  EXPECT_EQ(texts.size(), all.size());
}

TEST(Grid, MeetsEveryHeadDimTypeAndLength) {
  const std::vector<Problem> all = Grid(GridSize::kAll);
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    std::vector<Problem> of_type;
    std::ranges::copy_if(all, std::back_inserter(of_type), [&](const Problem& p) { return p.dtype == type; });
    const auto dims = Seen(of_type, [](const Problem& p) { return p.head_dim; });
    for (const int d : {1, 8, 40, 64, 80, 96, 128, 192, 256, 320, 512}) EXPECT_TRUE(dims.count(d)) << Name(type) << " d=" << d;
    const auto lengths = Seen(of_type, [](const Problem& p) { return std::pair{p.seq_q, p.seq_kv}; });
    for (const int q : {0, 1, 3, 17, 127, 128, 129, 1037}) {
      for (const int kv : {0, 1, 3, 17, 127, 128, 129, 1037}) {
        EXPECT_TRUE(lengths.count({q, kv})) << Name(type) << " " << q << " x " << kv;
      }
    }
    const auto groups = Seen(of_type, [](const Problem& p) { return p.Group(); });
    for (int g = 1; g <= 8; ++g) EXPECT_TRUE(groups.count(g)) << Name(type) << " group " << g;
    EXPECT_TRUE(Seen(of_type, [](const Problem& p) { return p.head_dim_v != p.head_dim; }).count(true));
  }
  const auto types = Seen(all, [](const Problem& p) { return std::pair{p.dtype, p.kv_dtype}; });
  EXPECT_EQ(types.size(), 8u);
}

TEST(Grid, MeetsEveryPairOfOptions) {
  std::set<std::pair<std::size_t, std::size_t>> pairs;
  std::size_t options = 0;
  for (const Problem& p : Grid(GridSize::kAll)) {
    const std::vector<bool> on = OptionsOf(p);
    options = on.size();
    for (std::size_t a = 0; a < on.size(); ++a) {
      for (std::size_t b = a; b < on.size(); ++b) {
        if (on[a] && on[b]) pairs.insert({a, b});
      }
    }
  }
  EXPECT_EQ(pairs.size(), options * (options + 1) / 2);
}

TEST(Grid, MeetsDropoutOfEveryKindWithEveryTypePhaseAndWayThatKeysLie) {
  std::vector<Problem> dropping;
  std::ranges::copy_if(Grid(GridSize::kAll), std::back_inserter(dropping),
                       [](const Problem& p) { return p.options.dropout > 0 && p.phase != Phase::kBackward; });
  const auto kinds =
      Seen(dropping, [](const Problem& p) { return std::tuple{p.options.dropout, p.dtype, p.kv_dtype, p.phase}; });
  EXPECT_EQ(kinds.size(), 3u * 8u * 3u);
  const auto forms =
      Seen(dropping, [](const Problem& p) { return std::tuple{p.page_size.has_value(), p.table, p.varlen}; });
  EXPECT_EQ(forms.size(), 2u + 3u);  // paged: block table, CSR, CSR and packed q
  const auto offsets = Seen(dropping, [](const Problem& p) { return p.seed % 2; });  // even: 64-bit dropout offsets
  EXPECT_EQ(offsets.size(), 2u);
}

TEST(Grid, MeetsEveryWayThatKeysLie) {
  for (const GridSize size : {GridSize::kQuick, GridSize::kAll}) {
    const std::vector<Problem> grid = Grid(size);
    const auto pages = Seen(grid, [](const Problem& p) { return p.page_size.value_or(0); });
    for (const int page : {0, 1, 7, 16, 256}) EXPECT_TRUE(pages.count(page)) << "page " << page;
    const auto forms = Seen(grid, [](const Problem& p) { return std::tuple{p.page_size.has_value(), p.layout, p.table, p.varlen}; });
    EXPECT_EQ(forms.size(), 2u + 2u * 2u * 2u);
    EXPECT_EQ(Seen(grid, [](const Problem& p) { return p.phase; }).size(), 4u);
    EXPECT_EQ(Seen(grid, [](const Problem& p) { return p.placement; }).size(), 2u);
    EXPECT_EQ(Seen(grid, [](const Problem& p) { return p.order; }).size(), 2u);
    EXPECT_EQ(Seen(grid, [](const Problem& p) { return p.seed % 2; }).size(), 2u);
    EXPECT_EQ(Seen(grid, [](const Problem& p) { return p.options.rotary; }).size(), 3u);
  }
}

TEST(Grid, QuickIsAPartOfAllAndMeetsEveryOption) {
  const std::vector<Problem> quick = Grid(GridSize::kQuick);
  EXPECT_GT(quick.size(), 100u);
  EXPECT_LT(quick.size(), 800u);
  std::vector<bool> met(17, false);
  for (const Problem& p : quick) {
    const std::vector<bool> on = OptionsOf(p);
    for (std::size_t a = 0; a < on.size(); ++a) met[a] = met[a] || on[a];
  }
  for (std::size_t a = 0; a < met.size(); ++a) EXPECT_TRUE(met[a]) << "option " << a;
}

}  // namespace
}  // namespace regard::cases
