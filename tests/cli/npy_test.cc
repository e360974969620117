// The .npy reader: what it writes it reads back, and no header can make it crash or take memory that the file lacks.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <random>
#include <string>

#include "cli/npy.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

std::string File(const std::string& header, const std::string& elements, char version = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += {version, 0, static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  if (version > 1) bytes += {0, 0};
  return bytes + header + elements;
}

std::string Header(const std::string& descr, const std::string& shape, const std::string& fortran = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }          \n";
}

NpyArray Parse(const std::string& bytes) {
  return ParseNpy("--q", "q.npy", {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
}

// The message of the refusal; empty if there was none.
std::string Refusal(const std::string& bytes) {
  try {
    Parse(bytes);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

class TempFile {
 public:
  explicit TempFile(const std::string& name)
      : path_(std::filesystem::temp_directory_path() / (name + std::to_string(std::random_device()()) + ".npy")) {}
  ~TempFile() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(Npy, WhatIsWrittenIsReadBack) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kI32, DType::kU8, DType::kBool}) {
    const TempFile file("regard_npy");
    std::vector<std::byte> data(2 * 3 * 5 * SizeOf(type));
    for (std::size_t n = 0; n < data.size(); ++n) data[n] = static_cast<std::byte>(type == DType::kBool ? n % 2 : n);
    WriteNpy("--out", file.path(), TensorView::Contiguous(data.data(), type, {2, 3, 5}));
    const NpyArray read = ReadNpy("--q", file.path());
    EXPECT_EQ(read.view.dtype, type);
    ASSERT_EQ(read.view.rank, 3);
    EXPECT_EQ(read.view.shape[2], 5);
    EXPECT_TRUE(read.view.IsContiguous());
    EXPECT_EQ(std::memcmp(read.view.data, data.data(), data.size()), 0) << Name(type);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(read.view.data) % 64, 0u);
  }
}

TEST(Npy, StridedViewsAreWrittenInRowMajorOrder) {
  const TempFile file("regard_npy");
  float data[6] = {0, 1, 2, 3, 4, 5};
  TensorView turned = TensorView::Contiguous(data, DType::kF32, {2, 3});
  std::swap(turned.shape[0], turned.shape[1]);
  std::swap(turned.stride[0], turned.stride[1]);
  WriteNpy("--out", file.path(), turned);
  const NpyArray read = ReadNpy("--q", file.path());
  const float expected[6] = {0, 3, 1, 4, 2, 5};
  EXPECT_EQ(read.view.shape[0], 3);
  EXPECT_EQ(std::memcmp(read.view.data, expected, sizeof(expected)), 0);
}

TEST(Npy, ReadsEveryVersionSpellingAndRank) {
  const std::string four(16, '\0');
  for (const char version : {1, 2, 3}) EXPECT_EQ(Parse(File(Header("<f4", "(4,)"), four, version)).view.shape[0], 4);
  EXPECT_EQ(Parse(File("{\"shape\":(2,2),\"descr\":\"<f4\",\"fortran_order\":False}", four)).view.rank, 2);
  EXPECT_EQ(Parse(File(Header("bfloat16", "(2, 4)"), four)).view.dtype, DType::kBF16);
  EXPECT_EQ(Parse(File(Header("|V2", "(8,)"), four)).view.dtype, DType::kBF16);
  EXPECT_EQ(Parse(File(Header("<f4", "()"), std::string(4, '\0'))).view.shape[0], 1);
  EXPECT_EQ(Parse(File(Header("<f4", "(3, 0, 2)"), "")).view.Elements(), 0);
  EXPECT_EQ(Parse(File(Header("<f4", "(4,)", "True"), four)).view.rank, 1) << "one dim has no order";
}

TEST(Npy, SixtyFourBitLengthsAreReadWhereTheyFit) {
  const std::int64_t fit[2] = {7, -3}, large[1] = {std::int64_t{1} << 31};
  const NpyArray read = Parse(File(Header("<i8", "(2,)"), std::string(reinterpret_cast<const char*>(fit), sizeof(fit))));
  EXPECT_EQ(read.view.dtype, DType::kI32);
  EXPECT_EQ(static_cast<const std::int32_t*>(read.view.data)[1], -3);
  EXPECT_NE(Refusal(File(Header("<i8", "(1,)"), std::string(reinterpret_cast<const char*>(large), sizeof(large)))), "");
}

TEST(Npy, RefusalsNameTheFileAndTheReason) {
  const std::string four(16, '\0');
  EXPECT_NE(Refusal("").find("not a .npy file"), std::string::npos);
  EXPECT_NE(Refusal("PK\x03\x04 and so on, a zip file").find("q.npy: not a .npy file"), std::string::npos);
  EXPECT_NE(Refusal(File(Header("<f8", "(2,)"), four)).find("type <f8"), std::string::npos);
  EXPECT_NE(Refusal(File(Header(">f4", "(4,)"), four)).find("type >f4"), std::string::npos);
  EXPECT_NE(Refusal(File(Header("|O", "(2,)"), four)).find("type |O"), std::string::npos);
  EXPECT_NE(Refusal(File(Header("<f4", "(2, 2)", "True"), four)).find("Fortran order"), std::string::npos);
  EXPECT_NE(Refusal(File(Header("<f4", "(1, 1, 1, 1, 1, 4)"), four)).find("rank 6"), std::string::npos);
  EXPECT_NE(Refusal(File(Header("<f4", "(5,)"), four)).find("16 bytes of elements"), std::string::npos);
  EXPECT_NE(Refusal(File(Header("<f4", "(3,)"), four)).find("16 bytes of elements"), std::string::npos);
  EXPECT_NE(Refusal(File(Header("<f4", "(4,)"), four, 9)).find("version 9"), std::string::npos);
}

TEST(Npy, ShapesThatOverflowAreRefused) {
  for (const char* shape : {"(4611686018427387904, 4)", "(9223372036854775807,)", "(4294967296, 4294967296, 0)",
                            "(99999999999999999999,)", "(0, 9223372036854775807, 9223372036854775807)", "(-4,)"}) {
    EXPECT_NE(Refusal(File(Header("<f4", shape), "")), "") << shape;
  }
}

TEST(Npy, MalformedHeadersAreRefused) {
  for (const char* header : {"", "{", "{}", "{'descr': '<f4'}", "{'descr': '', 'fortran_order': False, 'shape': (1,)}",
                             "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,)}",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': (1,}",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} more",
                             "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
                             "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
                             "{'descr': '<f4, 'fortran_order': False, 'shape': (1,)}"}) {
    EXPECT_NE(Refusal(File(header, std::string(4, '\0'))), "") << header;
  }
}

TEST(Npy, NoCorruptionCrashesIt) {
  const std::string sound = File(Header("<f4", "(2, 3)"), std::string(24, '\1'));
  for (std::size_t length = 0; length < sound.size(); ++length) {
    EXPECT_NE(Refusal(sound.substr(0, length)), "") << "cut to " << length;
  }
  std::mt19937 random(1);
  for (int round = 0; round < 5000; ++round) {
    std::string bytes = sound;
    for (unsigned n = 0; n <= random() % 4; ++n) bytes[random() % bytes.size()] = static_cast<char>(random());
    Refusal(bytes);
  }
}

TEST(Npy, FilesThatCannotBeReadOrWrittenAreErrors) {
  EXPECT_THROW(ReadNpy("--q", "/nowhere/q.npy"), Error);
  EXPECT_THROW(ReadNpy("--q", std::filesystem::temp_directory_path().string()), Error);
  float x = 0;
  EXPECT_THROW(WriteNpy("--out", "/nowhere/out.npy", TensorView::Contiguous(&x, DType::kF32, {1})), Error);
}

}  // namespace
}  // namespace regard::cli
