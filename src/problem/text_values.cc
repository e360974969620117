// Numbers and names of the problem's text form (text_values.h). std::from_chars and std::to_chars: no locale, exact.
#include "src/problem/text_values.h"

#include <charconv>
#include <cmath>
#include <system_error>
#include <vector>

#include "src/core/suggest.h"

namespace regard {
namespace {

constexpr std::size_t kShownBytes = 60;

[[noreturn]] void ThrowBad(std::string_view field, std::string_view text, const char* expected) {
  throw Error(std::string(field), text.empty() ? "no value" : Shown(text), expected);
}

template <class T>
T ReadNumber(std::string_view field, std::string_view text, const char* expected) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) ThrowBad(field, text, expected);
  return value;
}

std::vector<std::string_view> DTypeNames() {
  std::vector<std::string_view> names;
  for (int t = 0; t <= static_cast<int>(DType::kBool); ++t) names.push_back(Name(static_cast<DType>(t)));
  return names;
}

}  // namespace

std::string Shown(std::string_view text) {
  std::string shown(text.substr(0, kShownBytes));
  for (char& c : shown) {
    if (c < ' ' || c > '~') c = '?';
  }
  if (text.size() > kShownBytes) shown += "...";
  return shown;
}

std::int64_t ReadInt(std::string_view field, std::string_view text) {
  return ReadNumber<std::int64_t>(field, text, "a whole number of at most 64 bits");
}

std::uint64_t ReadUint(std::string_view field, std::string_view text) {
  return ReadNumber<std::uint64_t>(field, text, "a whole number from 0 to 18446744073709551615");
}

double ReadDouble(std::string_view field, std::string_view text) {
  const char* expected = "a decimal number such as 0.5, 30 or 1e-3";
  const double value = ReadNumber<double>(field, text, expected);
  if (std::isnan(value)) ThrowBad(field, text, expected);
  return value;
}

DType ReadDType(std::string_view field, std::string_view text) {
  return static_cast<DType>(ReadName(field, text, DTypeNames()));
}

std::size_t ReadName(std::string_view field, std::string_view text, std::span<const std::string_view> names) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (text == names[i]) return i;
  }
  std::string expected = "one of";
  for (const std::string_view name : names) expected += " " + std::string(name);
  const std::string nearest = Nearest(text, names);
  if (!nearest.empty()) expected += "; the nearest is " + nearest;
  ThrowBad(field, text, expected.c_str());
}

std::string WriteDouble(double x) {
  char text[32];
  return std::string(text, std::to_chars(text, text + sizeof(text), x).ptr);
}

std::string WriteName(std::size_t index, std::span<const std::string_view> names) {
  return index < names.size() ? std::string(names[index]) : "?";
}

}  // namespace regard
