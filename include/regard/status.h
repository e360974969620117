// Errors. Every refusal of regard is one regard::Error that names the field, the value it had and what was expected;
// it is thrown before anything is written.
#pragma once

#include <stdexcept>
#include <string>

#include "regard/export.h"

namespace regard {

class REGARD_API Error : public std::invalid_argument {
 public:
  // what() reads "field: value ...; expected ...".
  Error(std::string field, std::string value, std::string expected);
  ~Error() override;

  const std::string& field() const noexcept { return field_; }
  const std::string& value() const noexcept { return value_; }
  const std::string& expected() const noexcept { return expected_; }

 private:
  std::string field_;
  std::string value_;
  std::string expected_;
};

}  // namespace regard
