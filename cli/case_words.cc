#include "cli/case_words.h"

#include <algorithm>
#include <string_view>

namespace regard::cli {
namespace {

bool BeginsCase(const std::string& word) {
  constexpr std::string_view kPhases[] = {"prefill", "decode", "mixed", "backward"};
  const std::string_view first = std::string_view(word).substr(0, word.find(' '));
  return word.find(' ') != std::string::npos ||
         std::find(std::begin(kPhases), std::end(kPhases), first) != std::end(kPhases);
}

}  // namespace

std::vector<std::string> JoinCases(const std::vector<std::string>& words) {
  std::vector<std::string> cases;
  for (const std::string& word : words) {
    if (cases.empty() || BeginsCase(word)) {
      cases.push_back(word);
    } else {
      cases.back() += " " + word;
    }
  }
  return cases;
}

}  // namespace regard::cli
