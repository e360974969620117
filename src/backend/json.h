// A minimal JSON writer, so that the library itself needs none: objects, arrays, strings, numbers, booleans.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

namespace regard {

class JsonWriter {
 public:
  JsonWriter& Open(char bracket) {
    Comma();
    text_ += bracket;
    first_ = true;
    return *this;
  }
  JsonWriter& Close(char bracket) {
    text_ += bracket;
    first_ = false;
    return *this;
  }
  JsonWriter& Key(std::string_view name) {
    Comma();
    Quote(name);
    text_ += ":";
    first_ = true;  // no comma between key and value
    return *this;
  }
  JsonWriter& Value(std::string_view s) {
    Comma();
    Quote(s);
    return *this;
  }
  JsonWriter& Value(const char* s) { return Value(std::string_view(s)); }
  JsonWriter& Value(const std::string& s) { return Value(std::string_view(s)); }
  JsonWriter& Value(bool b) { return Raw(b ? "true" : "false"); }
  JsonWriter& Value(std::int64_t n) { return Raw(std::to_string(n)); }
  JsonWriter& Value(int n) { return Raw(std::to_string(n)); }
  // JSON has no infinity and no NaN: null.
  JsonWriter& Value(double x) {
    if (!std::isfinite(x)) return Raw("null");
    char text[32];
    return Raw({text, static_cast<std::size_t>(std::to_chars(text, text + sizeof text, x).ptr - text)});
  }
  template <class T>
  JsonWriter& Member(std::string_view name, const T& value) {
    return Key(name).Value(value);
  }
  std::string Take() { return std::move(text_); }

 private:
  void Comma() {
    if (!first_) text_ += ",";
    first_ = false;
  }
  JsonWriter& Raw(std::string_view s) {
    Comma();
    text_ += s;
    return *this;
  }
  void Quote(std::string_view s) {
    text_ += '"';
    for (const char c : s) {
      if (c == '"' || c == '\\') {
        text_ += '\\';
        text_ += c;
      } else if (static_cast<unsigned char>(c) < 0x20) {
        constexpr char kHex[] = "0123456789abcdef";
        text_ += "\\u00";
        text_ += kHex[c >> 4];
        text_ += kHex[c & 15];
      } else {
        text_ += c;
      }
    }
    text_ += '"';
  }
  std::string text_;
  bool first_ = true;
};

}  // namespace regard
