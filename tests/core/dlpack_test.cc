// DLPack in and out.

#include "regard/dlpack.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "regard/status.h"

namespace regard {
namespace {

struct Source {
  std::vector<float> memory = std::vector<float>(64);
  std::int64_t shape[6] = {2, 3, 4, 1, 1, 1};
  std::int64_t strides[6] = {24, 8, 2, 1, 1, 1};
  DLTensor tensor{memory.data(), {kDLCPU, 0}, 3, {kDLFloat, 32, 1}, shape, strides, 0};
};

TEST(DLPack, StridedTensorBecomesTheSameView) {
  Source s;
  s.tensor.byte_offset = 8;
  const TensorView v = FromDLPack(s.tensor);
  EXPECT_EQ(v.data, s.memory.data() + 2);
  EXPECT_EQ(v.dtype, DType::kF32);
  EXPECT_EQ(v.rank, 3);
  for (int d = 0; d < 3; ++d) {
    EXPECT_EQ(v.shape[d], s.shape[d]);
    EXPECT_EQ(v.stride[d], s.strides[d]);
  }
}

TEST(DLPack, AbsentStridesMeanRowMajor) {
  Source s;
  s.tensor.strides = nullptr;
  const TensorView v = FromDLPack(s.tensor);
  EXPECT_TRUE(v.IsContiguous());
  EXPECT_EQ(v.stride[0], 12);
}

TEST(DLPack, EveryTypeMapsBothWays) {
  const std::pair<DLDataType, DType> types[] = {
      {{kDLFloat, 32, 1}, DType::kF32}, {{kDLFloat, 16, 1}, DType::kF16}, {{kDLBfloat, 16, 1}, DType::kBF16},
      {{10, 8, 1}, DType::kF8E4M3},     {{12, 8, 1}, DType::kF8E5M2},     {{kDLInt, 32, 1}, DType::kI32},
      {{kDLUInt, 8, 1}, DType::kU8},    {{6, 8, 1}, DType::kBool}};
  for (const auto& [dl, dtype] : types) {
    Source s;
    s.tensor.dtype = dl;
    EXPECT_EQ(FromDLPack(s.tensor).dtype, dtype);
    DLManagedTensor* exported = ToDLPack(OwnedTensor(dtype, {2}));
    EXPECT_EQ(exported->dl_tensor.dtype.code, dl.code);
    EXPECT_EQ(exported->dl_tensor.dtype.bits, dl.bits);
    EXPECT_EQ(exported->dl_tensor.dtype.lanes, 1);
    exported->deleter(exported);
  }
}

TEST(DLPack, ErrorsNameTheField) {
  const std::pair<const char*, std::function<void(Source&)>> faults[] = {
      {"device_type", [](Source& s) { s.tensor.device.device_type = kDLMetal; }},
      {"ndim", [](Source& s) { s.tensor.ndim = 6; }},
      {"ndim", [](Source& s) { s.tensor.ndim = -1; }},
      {"shape", [](Source& s) { s.shape[1] = -3; }},
      {"shape", [](Source& s) { s.shape[1] = INT64_MAX / 2; }},
      {"shape", [](Source& s) { s.tensor.shape = nullptr; }},
      {"lanes", [](Source& s) { s.tensor.dtype.lanes = 4; }},
      {"dtype", [](Source& s) { s.tensor.dtype.bits = 64; }},
      {"dtype", [](Source& s) { s.tensor.dtype.code = kDLComplex; }},
      {"dtype", [](Source& s) { s.tensor.dtype = {8, 8, 1}; }},  // e4m3 with infinities is another format
      {"byte_offset", [](Source& s) { s.tensor.byte_offset = 2; }},
      {"data", [](Source& s) { s.tensor.data = nullptr; }},
  };
  for (const auto& [field, spoil] : faults) {
    Source s;
    spoil(s);
    try {
      FromDLPack(s.tensor);
      ADD_FAILURE() << "no error for a bad " << field;
    } catch (const Error& e) {
      EXPECT_EQ(e.field(), field) << e.what();
    }
  }
}

TEST(DLPack, NullDataIsFineWithoutElements) {
  Source s;
  s.tensor.data = nullptr;
  s.shape[0] = 0;
  EXPECT_EQ(FromDLPack(s.tensor).Elements(), 0);
}

TEST(DLPack, ExportKeepsTheMemoryAliveUntilItsDeleterRuns) {
  DLManagedTensor* exported;
  {
    const OwnedTensor t(DType::kF32, {2, 3});
    *t.view().At<float>(1, 2) = 5;
    exported = ToDLPack(t);
  }
  const TensorView v = FromDLPack(exported->dl_tensor);
  EXPECT_EQ(v.Describe(), "f32 (2, 3)");
  EXPECT_EQ(*v.At<float>(1, 2), 5);  // AddressSanitizer would tell
  exported->deleter(exported);
}

TEST(DLPack, ExportOfNothingIsAnError) { EXPECT_THROW(ToDLPack(OwnedTensor()), Error); }

}  // namespace
}  // namespace regard
