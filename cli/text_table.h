// A table of text for people: columns as wide as their widest cell, two spaces apart; the last column is not padded.
#pragma once

#include <string>
#include <vector>

namespace regard::cli {

enum class Align { kLeft, kRight };

class TextTable {
 public:
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };
  explicit TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // One cell a column; missing ones are empty.
  void Row(std::vector<std::string> cells);
  std::string Text() const;  // title line, rows; each ends with a newline

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Columns that a UTF-8 text takes on a terminal, counting each code point as one.
std::size_t DisplayWidth(const std::string& text);

}  // namespace regard::cli
