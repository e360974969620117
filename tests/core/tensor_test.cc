// TensorView, OwnedTensor, Error and the version.

#include "regard/tensor.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "regard/attention.h"
#include "regard/status.h"
#include "regard/version.h"

namespace regard {
namespace {

TEST(Tensor, ContiguousIsRowMajor) {
  float memory[24];
  const TensorView v = TensorView::Contiguous(memory, DType::kF32, {2, 3, 4});
  EXPECT_EQ(v.rank, 3);
  EXPECT_EQ(v.stride[0], 12);
  EXPECT_EQ(v.stride[1], 4);
  EXPECT_EQ(v.stride[2], 1);
  EXPECT_EQ(v.Elements(), 24);
  EXPECT_TRUE(v.IsContiguous());
  EXPECT_EQ(v.At<float>(1, 2, 3), memory + 23);
}

TEST(Tensor, GapsAndBroadcastAreNotContiguousButExtentOneMayHaveAnyStride) {
  TensorView v = TensorView::Contiguous(nullptr, DType::kF16, {2, 1, 4});
  v.stride[1] = 1000;
  EXPECT_TRUE(v.IsContiguous());
  v.stride[0] = 8;
  EXPECT_FALSE(v.IsContiguous());
  v.stride[0] = 0;
  EXPECT_FALSE(v.IsContiguous());
  v.shape[2] = 0;
  EXPECT_TRUE(v.IsContiguous());
  EXPECT_EQ(v.Elements(), 0);
}

TEST(Tensor, NegativeStrideReachesBackwards) {
  std::uint16_t memory[6] = {};
  TensorView v = TensorView::Contiguous(memory + 5, DType::kBF16, {6});
  v.stride[0] = -1;
  EXPECT_EQ(v.At<std::uint16_t>(5), memory);
}

TEST(Tensor, ContiguousRefusesTooManyDimensionsNegativeAndOverflowingExtents) {
  const auto field_of = [](std::initializer_list<std::int64_t> shape) -> std::string {
    try {
      TensorView::Contiguous(nullptr, DType::kF32, shape);
    } catch (const Error& e) {
      return e.field();
    }
    return "";
  };
  EXPECT_EQ(field_of({1, 1, 1, 1, 1, 1}), "rank");
  EXPECT_EQ(field_of({1, 1, 1, 1, 1}), "");
  EXPECT_EQ(field_of({2, -1}), "shape");
  EXPECT_EQ(field_of({INT64_C(1) << 32, INT64_C(1) << 32}), "shape");
}

TEST(Tensor, DescribeNamesTypeAndShape) {
  EXPECT_EQ(TensorView::Contiguous(nullptr, DType::kBF16, {1, 4096, 8, 128}).Describe(), "bf16 (1, 4096, 8, 128)");
  EXPECT_EQ(TensorView::Contiguous(nullptr, DType::kF32, {}).Describe(), "f32 ()");
}

TEST(OwnedTensor, IsAlignedAndSharedByItsCopies) {
  OwnedTensor copy;
  EXPECT_FALSE(copy.defined());
  {
    const OwnedTensor t(DType::kF32, {3, 5});
    EXPECT_TRUE(t.defined());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.view().data) % 64, 0u);
    *t.view().At<float>(2, 4) = 7;
    copy = t;
  }
  EXPECT_EQ(*copy.view().At<float>(2, 4), 7);
}

TEST(OwnedTensor, WithoutElementsStillHasAnAddress) {
  const OwnedTensor t(DType::kF16, {0, 8});
  EXPECT_TRUE(t.defined());
  EXPECT_NE(t.view().data, nullptr);
  EXPECT_EQ(t.view().Elements(), 0);
}

TEST(OwnedTensor, RefusesMoreBytesThan63BitsCount) {
  EXPECT_THROW(OwnedTensor(DType::kF32, {INT64_C(1) << 62}), Error);
}

TEST(Error, WhatNamesFieldValueAndExpectation) {
  const Error e("hq", "7 is not a multiple of hkv 2", "hq = n * hkv");
  EXPECT_STREQ(e.what(), "hq: 7 is not a multiple of hkv 2; expected hq = n * hkv");
  EXPECT_EQ(e.field(), "hq");
  EXPECT_EQ(e.value(), "7 is not a multiple of hkv 2");
  EXPECT_EQ(e.expected(), "hq = n * hkv");
  EXPECT_STREQ(Error("out", "", "a tensor").what(), "out: expected a tensor");
  EXPECT_STREQ(Error("append", "4 keys do not fit", "").what(), "append: 4 keys do not fit");
}

TEST(Version, LibraryAgreesWithItsHeaders) { EXPECT_STREQ(regard_version(), REGARD_VERSION_STRING); }

}  // namespace
}  // namespace regard
