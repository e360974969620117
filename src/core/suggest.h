// Finds the known word nearest to a mistyped one, for error messages ("did you mean ...").
//
// The measure is the edit distance (insert, delete, replace, swap of neighbours, each costing 1). A word counts as
// near when the distance is at most a third of the longer word's length, and at least 1 edit is always allowed.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace regard {

// The word of `known` nearest to `word`, the first of equals; "" when nothing is near. Letter case is ignored.
std::string Nearest(std::string_view word, std::span<const std::string_view> known);

}  // namespace regard
