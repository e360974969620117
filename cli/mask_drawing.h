// The visible part of a problem's score matrix as text: queries down, keys across, one cell for a rectangle of pairs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "regard/problem.h"
#include "src/problem/sequence.h"

namespace regard::cli {

enum class Tile : std::uint8_t { kEmpty, kPartial, kFull };

// Cells of one sequence: row r covers queries [r * queries_per_cell, ...), column c keys [c * keys_per_cell, ...).
struct MaskGrid {
  std::int64_t queries_per_cell = 1, keys_per_cell = 1;
  std::int64_t rows = 0, columns = 0;
  std::vector<Tile> tiles;  // row-major
  double visible_pairs = 0, pairs = 0;
  Tile At(std::int64_t row, std::int64_t column) const {
    return tiles[static_cast<std::size_t>(row * columns + column)];
  }
};

// At most max_rows x max_columns cells. A boolean mask or a mask_mod makes every full cell partial.
MaskGrid CoverGrid(const AttentionOptions& options, const Sequence& s, bool punched, std::int64_t max_rows,
                   std::int64_t max_columns);

// The sequence `index` of a problem as a generated case has it (lengths, left padding, offsets).
// Throws Error{"sequence"} if there is none.
Sequence SequenceOf(const Problem& p, std::int64_t index);

// The drawing of that sequence, scaled to `width` columns, with a legend.
std::string DrawMask(const Problem& p, std::int64_t index, std::int64_t width);

// Columns of the terminal: COLUMNS, else what the terminal says, else 80.
std::int64_t TerminalWidth();

}  // namespace regard::cli
