// MergeStates on a pretended GPU beside the CPU's: every type, identities among the states, odd sizes and none.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "regard/attention.h"
#include "src/cuda/driver/memory.h"
#include "tests/emulator/emulated_cases.h"
#include "tests/emulator/fake/control.h"
#include "tests/support/sequence_data.h"

namespace regard::emulator {
namespace {

using testing::Buffer;

struct State {
  Buffer o, lse;
};

State RandomState(DType type, std::int64_t rows, std::int64_t heads, std::int64_t dim, std::uint64_t seed) {
  State state{Buffer::Random(type, rows * heads * dim, 1, seed),
              Buffer::Random(DType::kF32, rows * heads, 3, seed + 1)};
  for (std::int64_t n = static_cast<std::int64_t>(seed % 3); n < rows * heads; n += 5) {  // identities: (0, -inf)
    StoreFloat(state.lse.bytes.data(), DType::kF32, n, -std::numeric_limits<float>::infinity());
  }
  return state;
}

// A copy on the device, and its view.
struct OnDevice {
  cuda::DeviceBuffer memory;
  TensorView view;
  OnDevice(Buffer& from, int device, std::initializer_list<std::int64_t> shape)
      : memory(device, std::max<std::size_t>(from.bytes.size(), 1)),
        view(TensorView::Contiguous(memory.data(), from.dtype, shape)) {
    view.device = {DeviceType::kCuda, device};
    memory.CopyFromHost(from.bytes.data(), from.bytes.size());
  }
};

void Compare(DType a_type, DType b_type, DType out_type, std::int64_t rows, std::int64_t heads, std::int64_t dim,
             int device) {
  SCOPED_TRACE(std::string(Name(a_type)) + " + " + std::string(Name(b_type)) + " -> " + std::string(Name(out_type)) +
               " rows " + std::to_string(rows) + " dim " + std::to_string(dim));
  State a = RandomState(a_type, rows, heads, dim, 10), b = RandomState(b_type, rows, heads, dim, 21);
  Buffer out = Buffer::Poisoned(out_type, rows * heads * dim), lse = Buffer::Poisoned(DType::kF32, rows * heads);
  const auto o_view = [&](Buffer& o) { return TensorView::Contiguous(o.At(0), o.dtype, {rows, heads, dim}); };
  const auto lse_view = [&](Buffer& l) { return TensorView::Contiguous(l.At(0), DType::kF32, {heads, rows}); };

  const OnDevice oa(a.o, device, {rows, heads, dim}), ob(b.o, device, {rows, heads, dim});
  const OnDevice la(a.lse, device, {heads, rows}), lb(b.lse, device, {heads, rows});
  const OnDevice out_on(out, device, {rows, heads, dim}), lse_on(lse, device, {heads, rows});
  MergeStates(oa.view, la.view, ob.view, lb.view, out_on.view, lse_on.view);
  EXPECT_TRUE(fake::TakeReports().empty());
  Buffer got = out, got_lse = lse;
  out_on.memory.CopyToHost(got.bytes.data(), got.bytes.size());
  lse_on.memory.CopyToHost(got_lse.bytes.data(), got_lse.bytes.size());

  MergeStates(o_view(a.o), lse_view(a.lse), o_view(b.o), lse_view(b.lse), o_view(out), lse_view(lse));
  const double step = out_type == DType::kBF16 ? 0x1p-7 : out_type == DType::kF16 ? 0x1p-10 : 1e-5;
  for (std::int64_t n = 0; n < rows * heads * dim; ++n) {
    const double x = LoadFloat(got.bytes.data(), out_type, n), y = LoadFloat(out.bytes.data(), out_type, n);
    ASSERT_LE(std::fabs(x - y), step * std::max(1.0, std::fabs(y))) << n;
  }
  for (std::int64_t n = 0; n < rows * heads; ++n) {
    const float x = LoadFloat(got_lse.bytes.data(), DType::kF32, n), y = LoadFloat(lse.bytes.data(), DType::kF32, n);
    if (x == y) continue;  // -inf too
    ASSERT_LE(std::fabs(x - y), 1e-5 * std::max(1.0f, std::fabs(y))) << n;
  }
}

TEST(Merge, OnAGpuIsTheCpusButForRounding) {
  constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
  for (int device = 0; device < static_cast<int>(std::size(kGpus)); ++device) {
    for (const DType type : kTypes) Compare(type, type, type, 5, 3, 64, device);
    Compare(DType::kF32, DType::kBF16, DType::kF16, 7, 2, 40, device);
    Compare(DType::kF16, DType::kF32, DType::kBF16, 1, 1, 1, device);
    Compare(DType::kBF16, DType::kBF16, DType::kF32, 3, 5, 511, device);
    Compare(DType::kF16, DType::kF16, DType::kF16, 33, 4, 96, device);
    Compare(DType::kF32, DType::kF32, DType::kF32, 0, 2, 64, device);
  }
}

}  // namespace
}  // namespace regard::emulator
