// A .npy file: "\x93NUMPY", version, length of the header, header (a Python dict literal), elements. Nothing in the header
// is trusted: shape and type are held against the bytes that are there before memory is taken for them.
#include "cli/npy.h"

#include <bit>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "regard/status.h"

namespace regard::cli {
namespace {

static_assert(std::endian::native == std::endian::little, "files hold little-endian elements");

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kMaxHeaderBytes = 65536;

struct Header {
  std::string descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<std::int64_t>> shape;
};

// Reads the dict literal of a header: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 64), }
class HeaderReader {
 public:
  explicit HeaderReader(std::string_view text) : text_(text) {}

  // Nothing where the text is no such dict.
  std::optional<Header> Read() {
    Header header;
    if (!Take('{')) return std::nullopt;
    while (!Take('}')) {
      const std::optional<std::string> key = String();
      if (!key || !Take(':') || !Value(*key, header)) return std::nullopt;
      if (!Take(',')) {
        if (!Take('}')) return std::nullopt;
        break;
      }
    }
    SkipSpace();
    if (!text_.empty() || header.descr.empty() || !header.fortran_order || !header.shape) return std::nullopt;
    return header;
  }

 private:
  bool Value(const std::string& key, Header& header) {
    if (key == "descr" && header.descr.empty()) {
      const std::optional<std::string> descr = String();
      if (!descr || descr->empty()) return false;
      header.descr = *descr;
      return true;
    }
    if (key == "fortran_order" && !header.fortran_order) {
      if (TakeWord("False")) header.fortran_order = false;
      if (TakeWord("True")) header.fortran_order = true;
      return header.fortran_order.has_value();
    }
    if (key == "shape" && !header.shape) {
      header.shape = Tuple();
      return header.shape.has_value();
    }
    return false;
  }

  std::optional<std::vector<std::int64_t>> Tuple() {
    std::vector<std::int64_t> extents;
    if (!Take('(')) return std::nullopt;
    while (!Take(')')) {
      const std::optional<std::int64_t> extent = Number();
      if (!extent || extents.size() > 32) return std::nullopt;
      extents.push_back(*extent);
      if (!Take(',')) {
        if (!Take(')')) return std::nullopt;
        break;
      }
    }
    return extents;
  }

  std::optional<std::int64_t> Number() {
    SkipSpace();
    std::int64_t value = 0;
    std::size_t digits = 0;
    while (digits < text_.size() && text_[digits] >= '0' && text_[digits] <= '9') {
      if (__builtin_mul_overflow(value, std::int64_t{10}, &value) ||
          __builtin_add_overflow(value, std::int64_t{text_[digits] - '0'}, &value)) {
        return std::nullopt;
      }
      ++digits;
    }
    if (digits == 0) return std::nullopt;
    text_.remove_prefix(digits);
    return value;
  }

  std::optional<std::string> String() {
    SkipSpace();
    if (text_.empty() || (text_[0] != '\'' && text_[0] != '"')) return std::nullopt;
    const std::size_t end = text_.find(text_[0], 1);
    if (end == text_.npos) return std::nullopt;
    std::string value(text_.substr(1, end - 1));
    text_.remove_prefix(end + 1);
    return value;
  }

  bool Take(char c) {
    SkipSpace();
    if (text_.empty() || text_[0] != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  bool TakeWord(std::string_view word) {
    SkipSpace();
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }
  void SkipSpace() {
    while (!text_.empty() && std::isspace(static_cast<unsigned char>(text_[0]))) text_.remove_prefix(1);
  }

  std::string_view text_;
};

struct ElementType {
  DType dtype;
  bool wide = false;  // i64 in the file, i32 in memory
};

std::optional<ElementType> ElementTypeOf(const std::string& descr) {
  const std::string_view code = std::string_view("<|=").find(descr[0]) != std::string_view::npos
                                    ? std::string_view(descr).substr(1)
                                    : std::string_view(descr);
  if (code == "f4") return ElementType{DType::kF32};
  if (code == "f2") return ElementType{DType::kF16};
  if (code == "V2" || code == "bfloat16") return ElementType{DType::kBF16};
  if (code == "i4") return ElementType{DType::kI32};
  if (code == "i8") return ElementType{DType::kI32, true};
  if (code == "u1") return ElementType{DType::kU8};
  if (code == "b1") return ElementType{DType::kBool};
  return std::nullopt;
}

// Text of a file for a message: printable, short.
std::string Shown(std::string_view text) {
  std::string shown(text.substr(0, 40));
  for (char& c : shown) {
    if (c < ' ' || c > '~') c = '?';
  }
  return shown;
}

const char* DescrOf(DType t) {
  switch (t) {
    case DType::kF32: return "<f4";
    case DType::kF16: return "<f2";
    case DType::kBF16: return "<V2";
    case DType::kI32: return "<i4";
    case DType::kBool: return "|b1";
    default: return "|u1";
  }
}

// Elements of `view` from `dim` on, in row-major order.
void AppendElements(const TensorView& view, const std::byte* at, int dim, std::string& out) {
  const auto size = static_cast<std::int64_t>(SizeOf(view.dtype));
  if (dim == view.rank) {
    out.append(reinterpret_cast<const char*>(at), static_cast<std::size_t>(size));
    return;
  }
  for (std::int64_t i = 0; i < view.shape[dim]; ++i) AppendElements(view, at + i * view.stride[dim] * size, dim + 1, out);
}

}  // namespace

NpyArray ParseNpy(const std::string& field, const std::string& name, std::span<const std::byte> bytes) {
  const auto fail = [&](const std::string& value, const std::string& expected) -> Error {
    return Error(field, name + ": " + value, expected);
  };
  const std::string_view file(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!file.starts_with(kMagic) || file.size() < 10) throw fail("not a .npy file", "a file that numpy.save wrote");
  const auto byte = [&](std::size_t i) { return static_cast<std::size_t>(static_cast<unsigned char>(file[i])); };
  const std::size_t version = byte(6);
  if (version < 1 || version > 3) throw fail(fmt::format("version {}", version), "version 1, 2 or 3");
  const std::size_t begin = version == 1 ? 10 : 12;
  if (file.size() < begin) throw fail("cut short", "a whole header");
  std::size_t length = byte(8) | byte(9) << 8;
  if (version > 1) length |= byte(10) << 16 | byte(11) << 24;
  if (length > kMaxHeaderBytes || length > file.size() - begin) {
    throw fail(fmt::format("a header of {} bytes", length),
               fmt::format("at most {}, all in the file", std::min(kMaxHeaderBytes, file.size() - begin)));
  }

  const std::string_view text = file.substr(begin, length);
  const std::optional<Header> header = HeaderReader(text).Read();
  if (!header) throw fail("header " + Shown(text), "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 64)}");
  const std::optional<ElementType> type = ElementTypeOf(header->descr);
  if (!type) throw fail("type " + Shown(header->descr), "<f4, <f2, <V2 (bf16), <i4, <i8, |u1 or |b1");
  std::vector<std::int64_t> shape = *header->shape;
  if (shape.empty()) shape = {1};
  if (shape.size() > TensorView::kMaxRank) throw fail(fmt::format("rank {}", shape.size()), "rank 5 at most");
  if (*header->fortran_order && shape.size() > 1) throw fail("Fortran order", "C order (numpy.ascontiguousarray)");

  const std::size_t element_bytes = type->wide ? 8 : SizeOf(type->dtype);
  std::int64_t elements = 1, bound = static_cast<std::int64_t>(element_bytes);
  for (const std::int64_t extent : shape) {
    if (__builtin_mul_overflow(bound, extent > 0 ? extent : 1, &bound)) {
      throw fail("a shape of more than 2^63 bytes", "a shape that fits memory");
    }
    elements *= extent;  // never beyond `bound`
  }
  const std::string_view data = file.substr(begin + length);
  const std::size_t wanted = static_cast<std::size_t>(elements) * element_bytes;
  if (data.size() != wanted) {
    throw fail(fmt::format("{} bytes of elements", data.size()), fmt::format("{}, as its shape and type say", wanted));
  }

  NpyArray array;
  array.memory = cases::Buffer(static_cast<std::size_t>(elements) * SizeOf(type->dtype));
  if (type->wide) {
    auto* out = reinterpret_cast<std::int32_t*>(array.memory.data());
    for (std::int64_t n = 0; n < elements; ++n) {
      std::int64_t value = 0;
      std::memcpy(&value, data.data() + n * 8, sizeof(value));
      if (value < std::numeric_limits<std::int32_t>::min() || value > std::numeric_limits<std::int32_t>::max()) {
        throw fail(fmt::format("element {} is {}", n, value), "values that fit 32 bits");
      }
      out[n] = static_cast<std::int32_t>(value);
    }
  } else if (wanted > 0) {
    std::memcpy(array.memory.data(), data.data(), wanted);
  }
  array.view.data = array.memory.data();
  array.view.dtype = type->dtype;
  array.view.rank = static_cast<int>(shape.size());
  std::int64_t stride = 1;
  for (std::size_t d = shape.size(); d-- > 0;) {
    array.view.shape[d] = shape[d];
    array.view.stride[d] = stride;
    stride *= shape[d] > 0 ? shape[d] : 1;
  }
  return array;
}

NpyArray ReadNpy(const std::string& field, const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  // A folder opens as a file and claims the largest size.
  if (size < 0 || size == std::numeric_limits<std::streamoff>::max()) throw Error(field, path, "a file that can be read");
  std::vector<std::byte> bytes(static_cast<std::size_t>(size));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), size);
  if (!file) throw Error(field, path, "a file that can be read");
  return ParseNpy(field, path, bytes);
}

void WriteNpy(const std::string& field, const std::string& path, const TensorView& view) {
  std::string shape;
  for (int d = 0; d < view.rank; ++d) shape += fmt::format("{}{}", view.shape[d], d + 1 < view.rank ? ", " : "");
  if (view.rank == 1) shape += ",";
  std::string header =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", DescrOf(view.dtype), shape);
  // Elements begin at a multiple of 64 bytes; the header ends with a newline.
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::string bytes(kMagic);
  bytes += {'\x01', '\x00', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  bytes += header;
  if (view.Elements() > 0) AppendElements(view, static_cast<const std::byte*>(view.data), 0, bytes);
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) throw Error(field, path, "a file that can be written");
}

}  // namespace regard::cli
