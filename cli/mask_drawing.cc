#include "cli/mask_drawing.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

#include "regard/status.h"
#include "src/cases/cases.h"
#include "src/problem/extent.h"

namespace regard::cli {
namespace {

std::int64_t DivideUp(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// The smallest of 1, 2, 4, 8, ... that cuts `length` into at most `cells` cells.
std::int64_t CellSize(std::int64_t length, std::int64_t cells) {
  std::int64_t size = 1;
  while (DivideUp(length, size) > cells) size *= 2;
  return size;
}

}  // namespace

MaskGrid CoverGrid(const AttentionOptions& options, const Sequence& s, bool punched, std::int64_t max_rows,
                   std::int64_t max_columns) {
  MaskGrid grid;
  grid.keys_per_cell = CellSize(s.seq_kv, std::max<std::int64_t>(max_columns, 1));
  grid.queries_per_cell = CellSize(s.seq_q, std::max<std::int64_t>(max_rows, 1));
  grid.rows = DivideUp(s.seq_q, grid.queries_per_cell);
  grid.columns = DivideUp(s.seq_kv, grid.keys_per_cell);
  grid.tiles.assign(static_cast<std::size_t>(grid.rows * grid.columns), Tile::kEmpty);
  grid.pairs = static_cast<double>(s.seq_q) * static_cast<double>(s.seq_kv);
  grid.visible_pairs = VisiblePairs(options, s);
  std::vector<std::int64_t> visible(static_cast<std::size_t>(grid.columns));  // pairs of one row of cells
  for (std::int64_t row = 0; row < grid.rows; ++row) {
    const std::int64_t i_begin = row * grid.queries_per_cell;
    const std::int64_t i_end = std::min(i_begin + grid.queries_per_cell, s.seq_q);
    std::fill(visible.begin(), visible.end(), 0);
    for (std::int64_t i = i_begin; i < i_end; ++i) {
      const KeyRange keys = VisibleKeys(options, s, i);
      if (keys.empty()) continue;
      for (std::int64_t c = keys.begin / grid.keys_per_cell; c <= (keys.end - 1) / grid.keys_per_cell; ++c) {
        const std::int64_t j_begin = c * grid.keys_per_cell;
        visible[static_cast<std::size_t>(c)] +=
            std::min(keys.end, j_begin + grid.keys_per_cell) - std::max(keys.begin, j_begin);
      }
    }
    for (std::int64_t c = 0; c < grid.columns; ++c) {
      const std::int64_t count = visible[static_cast<std::size_t>(c)];
      const std::int64_t keys = std::min(s.seq_kv, (c + 1) * grid.keys_per_cell) - c * grid.keys_per_cell;
      if (count == 0) continue;
      const bool full = count == keys * (i_end - i_begin) && !punched;
      grid.tiles[static_cast<std::size_t>(row * grid.columns + c)] = full ? Tile::kFull : Tile::kPartial;
    }
  }
  return grid;
}

Sequence SequenceOf(const Problem& p, std::int64_t index) {
  Problem lengths = p;  // only what settles lengths, offsets and padding, so that the case is small
  if (p.phase == Phase::kBackward) lengths.phase = Phase::kPrefill;
  lengths.grad_dtype.reset();
  lengths.dlse = lengths.dbias = lengths.dsink = false;
  lengths.heads_q = lengths.heads_kv = lengths.head_dim = lengths.head_dim_v = 1;
  lengths.dtype = lengths.kv_dtype = DType::kF32;
  lengths.out_dtype.reset();
  lengths.page_size.reset();
  lengths.table = TableKind::kBlock;
  lengths.options.rotary = Rotary::kNone;
  lengths.options.dropout = 0;
  lengths.bias = lengths.mask = lengths.alibi = lengths.sink = lengths.qv = lengths.lse = false;
  lengths.score_mod = lengths.mask_mod = false;
  lengths.mask_density = 0;
  cases::Case generated = cases::MakeCase(lengths);
  const std::int64_t batch = BatchOf(generated.args());
  if (index < 0 || index >= batch) throw Error("sequence", std::to_string(index), fmt::format("0 to {}", batch - 1));
  std::vector<Sequence> sequences(static_cast<std::size_t>(batch));
  std::vector<std::byte> scratch(ResolveScratchBytes(generated.problem()));
  ResolveArgs(generated.problem(), generated.args(), true, sequences, scratch);
  return sequences[static_cast<std::size_t>(index)];
}

std::string DrawMask(const Problem& p, std::int64_t index, std::int64_t width) {
  constexpr std::int64_t kMaxRows = 32;
  const Sequence s = SequenceOf(p, index);
  const bool punched = p.mask || p.mask_mod;
  const std::size_t label = std::to_string(std::max<std::int64_t>(s.seq_q, 1) - 1).size();
  const std::int64_t columns = std::max<std::int64_t>(width - static_cast<std::int64_t>(label) - 2, 8);
  const MaskGrid grid = CoverGrid(p.options, s, punched, kMaxRows, columns);
  std::string text =
      fmt::format("mask      sequence {}: {} queries (down) x {} keys (across), {:.1f} % of the pairs visible{}\n",
                  index, s.seq_q, s.seq_kv, grid.pairs > 0 ? 100 * grid.visible_pairs / grid.pairs : 0.0,
                  punched ? " before the boolean mask" : "");
  for (std::int64_t row = 0; row < grid.rows; ++row) {
    text += fmt::format("{:>{}} ", row * grid.queries_per_cell, label);
    for (std::int64_t c = 0; c < grid.columns; ++c) {
      const Tile tile = grid.At(row, c);
      text += tile == Tile::kFull ? "█" : tile == Tile::kPartial ? "▒" : "·";
    }
    text += "\n";
  }
  std::int64_t full = std::count(grid.tiles.begin(), grid.tiles.end(), Tile::kFull);
  std::int64_t partial = std::count(grid.tiles.begin(), grid.tiles.end(), Tile::kPartial);
  const auto all = static_cast<std::int64_t>(grid.tiles.size());
  text += fmt::format("one cell: {} {} x {} {}   █ full {}   ▒ partial {}   · empty, skipped {}\n",
                      grid.queries_per_cell, grid.queries_per_cell == 1 ? "query" : "queries", grid.keys_per_cell,
                      grid.keys_per_cell == 1 ? "key" : "keys", full, partial, all - full - partial);
  return text;
}

std::int64_t TerminalWidth() {
  constexpr std::int64_t kDefault = 80, kLeast = 20, kMost = 400;
  std::int64_t width = 0;
  if (const char* columns = std::getenv("COLUMNS")) width = std::strtoll(columns, nullptr, 10);
  winsize size{};
  if (width <= 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) width = size.ws_col;
  return width <= 0 ? kDefault : std::clamp(width, kLeast, kMost);
}

}  // namespace regard::cli
