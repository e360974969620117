#include "cli/text_table.h"

#include <algorithm>
#include <utility>

namespace regard::cli {
namespace {

void AppendCell(const std::string& cell, std::size_t width, Align align, bool last, std::string* line) {
  const std::string gap(width - std::min(width, DisplayWidth(cell)), ' ');
  if (align == Align::kRight) *line += gap;
  *line += cell;
  if (!last && align == Align::kLeft) *line += gap;
  if (!last) *line += "  ";
}

void AppendLine(std::string line, std::string* text) {
  while (!line.empty() && line.back() == ' ') line.pop_back();
  *text += line + "\n";
}

}  // namespace

std::size_t DisplayWidth(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

void TextTable::Row(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string TextTable::Text() const {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t width = DisplayWidth(columns_[c].title);
    for (const auto& row : rows_) width = std::max(width, DisplayWidth(row[c]));
    widths.push_back(width);
  }
  std::string text, titles;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    AppendCell(columns_[c].title, widths[c], columns_[c].align, c + 1 == columns_.size(), &titles);
  }
  AppendLine(titles, &text);
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      AppendCell(row[c], widths[c], columns_[c].align, c + 1 == columns_.size(), &line);
    }
    AppendLine(line, &text);
  }
  return text;
}

}  // namespace regard::cli
