// regard::Error: field, value and expectation, and the one line made of them.

#include "regard/status.h"

#include <utility>

namespace regard {
namespace {

std::string Sentence(const std::string& field, const std::string& value, const std::string& expected) {
  std::string text = field + ":";
  if (!value.empty()) text += " " + value;
  if (!expected.empty()) text += (value.empty() ? " expected " : "; expected ") + expected;
  return text;
}

}  // namespace

Error::Error(std::string field, std::string value, std::string expected)
    : std::invalid_argument(Sentence(field, value, expected)),
      field_(std::move(field)),
      value_(std::move(value)),
      expected_(std::move(expected)) {}

Error::~Error() = default;

}  // namespace regard
