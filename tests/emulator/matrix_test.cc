// Matrix instructions of the emulator against plain products, through the fragment layouts of ptx/mma.h and
// ptx/ldmatrix.h. The plain products index rows and columns.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "ptx/convert.h"
#include "ptx/ldmatrix.h"
#include "ptx/memory.h"
#include "ptx/mma.h"
#include "ptx/thread.h"
#include "tests/emulator/device_array.h"
#include "tests/emulator/run_toy.h"

namespace regard::emulator {
namespace {

using namespace cuda;

// Small whole numbers and quarters: exact in every type, and so is any sum of 16 products of them.
float A(int m, int k) {
  return static_cast<float>((m * 7 + k * 3) % 11 - 5) / 4;
}
float B(int k, int n) {
  return static_cast<float>((k * 5 + n * 13) % 9 - 4) / 2;
}
float D(int m, int n) {
  return static_cast<float>(m - 2 * n);
}

double Product(int m, int n, int depth) {
  double sum = D(m, n);
  for (int k = 0; k < depth; ++k) sum += static_cast<double>(A(m, k)) * B(k, n);
  return sum;
}

enum class Kind { kF16, kBF16, kF16K8, kTf32 };

u32 Word(Kind kind, float low, float high) {
  return kind == Kind::kTf32   ? __builtin_bit_cast(u32, low)
         : kind == Kind::kBF16 ? PackBF16(low, high)
                               : PackF16(low, high);
}

// The product of all lanes, as a row-major 16 x 8 matrix.
std::vector<float> Multiply(Kind kind, int arch) {
  const DeviceArray<float> out(16 * 8);
  RunToy(Shape(32, 0, arch), [&] {
    const int g = Lane() / 4, c = Lane() % 4;
    float d[4];
    for (int i = 0; i < 4; ++i) d[i] = D(g + 8 * (i / 2), 2 * c + i % 2);
    u32 a[4], b[2];
    if (kind == Kind::kTf32) {
      for (int i = 0; i < 4; ++i) a[i] = Word(kind, A(g + 8 * (i % 2), c + 4 * (i / 2)), 0);
      for (int i = 0; i < 2; ++i) b[i] = Word(kind, B(c + 4 * i, g), 0);
    } else {
      for (int i = 0; i < 4; ++i) {
        const int m = g + 8 * (i % 2), k = 2 * c + 8 * (i / 2);
        a[i] = Word(kind, A(m, k), A(m, k + 1));
      }
      for (int i = 0; i < 2; ++i) b[i] = Word(kind, B(2 * c + 8 * i, g), B(2 * c + 8 * i + 1, g));
    }
    switch (kind) {
      case Kind::kF16:
        MmaF16(d, a, b[0], b[1]);
        break;
      case Kind::kBF16:
        MmaBF16(d, a, b[0], b[1]);
        break;
      case Kind::kF16K8:
        MmaF16K8(d, a[0], a[1], b[0]);
        break;
      case Kind::kTf32:
        MmaTf32(d, a, b[0], b[1]);
        break;
    }
    const Global<float> results(out.address());
    for (int i = 0; i < 4; ++i) results.Store((g + 8 * (i / 2)) * 8 + 2 * c + i % 2, d[i]);
  });
  return out.Values();
}

void ExpectProduct(Kind kind, int depth, int arch) {
  const std::vector<float> got = Multiply(kind, arch);
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n)
      EXPECT_EQ(got[static_cast<std::size_t>(m * 8 + n)], Product(m, n, depth)) << m << " " << n;
  }
}

TEST(MatrixProduct, OfF16IsThePlainOne) {
  ExpectProduct(Kind::kF16, 16, 80);
}
TEST(MatrixProduct, OfBF16IsThePlainOne) {
  ExpectProduct(Kind::kBF16, 16, 80);
}
TEST(MatrixProduct, OfF16InStepsOfEightIsThePlainOneOnSm75) {
  ExpectProduct(Kind::kF16K8, 8, 75);
}
TEST(MatrixProduct, OfTf32IsThePlainOne) {
  ExpectProduct(Kind::kTf32, 8, 80);
}

// One lane's d after a product in which a is x in every place, b is y, and d starts at z.
float Uniform(Kind kind, float x, float y, float z) {
  float result = 0;
  RunToy(Shape(), [&] {
    float d[4] = {z, z, z, z};
    const u32 wx = Word(kind, x, x), wy = Word(kind, y, y);
    const u32 a[4] = {wx, wx, wx, wx};
    if (kind == Kind::kTf32) MmaTf32(d, a, wy, wy);
    if (kind == Kind::kF16) MmaF16(d, a, wy, wy);
    if (kind == Kind::kBF16) MmaBF16(d, a, wy, wy);
    if (Lane() == 9) result = d[3];
  });
  return result;
}

TEST(MatrixProduct, Tf32DropsTheLowThirteenBits) {
  const float x = __builtin_bit_cast(float, 0x3f803fffu);  // 1 + 2^-9 - 2^-23: the upper 10 bits are 1 + 2^-9 - 2^-10
  EXPECT_EQ(Uniform(Kind::kTf32, x, 1, 0), 8 * (1 + 0x1p-10f));
}

TEST(MatrixProduct, SumsAreRoundedOnce) {
  // 16 terms of 2^-25 each vanish one by one beside 1 in f32, but not together.
  EXPECT_EQ(Uniform(Kind::kF16, 0x1p-13f, 0x1p-12f, 1), 1 + 0x1p-21f);
}

TEST(MatrixProduct, SubnormalsInfinitiesAndNanGoThrough) {
  EXPECT_EQ(Uniform(Kind::kF16, 0x1p-24f, 1, 0), 16 * 0x1p-24f);
  EXPECT_EQ(Uniform(Kind::kF16, -0x3p-24f, 1, 0), -48 * 0x1p-24f);
  EXPECT_EQ(Uniform(Kind::kF16, 65504, 65504, 0), 16 * 65504.0f * 65504.0f);
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Uniform(Kind::kF16, infinity, 2, 0), infinity);
  EXPECT_EQ(Uniform(Kind::kBF16, -infinity, 2, 0), -infinity);
  EXPECT_TRUE(std::isnan(Uniform(Kind::kF16, infinity, 0, 0)));
  EXPECT_TRUE(std::isnan(Uniform(Kind::kF16, std::nanf(""), 1, 0)));
  EXPECT_TRUE(std::isnan(Uniform(Kind::kBF16, 1, 1, std::nanf(""))));
  EXPECT_EQ(Uniform(Kind::kBF16, 3e38f, 3e38f, 0), infinity);
}

// Four 8 x 8 matrices beside each other in rows of `stride` elements; element = 64 matrix + 8 row + column.
template <class Load>
std::vector<u32> LoadedWords(int words, Load load) {
  const DeviceArray<u32> out(32 * 4);
  RunToy(Shape(32, 8 * 48 * 2), [&] {
    const Shared<u16> tile(0);
    constexpr int kStride = 48;
    for (int i = Lane(); i < 8 * kStride; i += 32) {
      const int row = i / kStride, column = i % kStride;
      tile.Store(i, static_cast<u16>(64 * (column / 8) + 8 * row + column % 8));
    }
    WarpBarrier();
    const int row = Lane() % 8 * kStride + Lane() / 8 * 8;
    u32 r[4] = {};
    load(r, tile, row);
    for (int m = 0; m < words; ++m) Global<u32>(out.address()).Store(Lane() * 4 + m, r[m]);
  });
  return out.Values();
}

TEST(Ldmatrix, GivesRowsOrColumnsOfFourMatrices) {
  const auto plain = LoadedWords(4, [](u32(&r)[4], Shared<u16> tile, int row) { LoadMatrix4(r, tile, row); });
  const auto turned = LoadedWords(4, [](u32(&r)[4], Shared<u16> tile, int row) { LoadMatrix4Trans(r, tile, row); });
  for (u32 l = 0; l < 32; ++l) {
    for (u32 m = 0; m < 4; ++m) {
      const u32 row = l / 4, column = 2 * (l % 4);
      EXPECT_EQ(plain[l * 4 + m], (64 * m + 8 * row + column) | (64 * m + 8 * row + column + 1) << 16);
      EXPECT_EQ(turned[l * 4 + m], (64 * m + 8 * column + row) | (64 * m + 8 * (column + 1) + row) << 16);
    }
  }
}

TEST(Ldmatrix, OfTwoMatricesIgnoresTheUpperLanes) {
  const auto turned = LoadedWords(2, [](u32(&r)[4], Shared<u16> tile, int row) {
    u32 two[2];
    LoadMatrix2Trans(two, tile, Lane() < 16 ? row : 0);
    r[0] = two[0], r[1] = two[1];
  });
  for (u32 l = 0; l < 32; ++l) {
    for (u32 m = 0; m < 2; ++m) {
      const u32 row = l / 4, column = 2 * (l % 4);
      EXPECT_EQ(turned[l * 4 + m], (64 * m + 8 * column + row) | (64 * m + 8 * (column + 1) + row) << 16);
    }
  }
}

// 24 elements a row: rows 48 bytes apart lie in different banks; 64 elements apart, all in the same.
TEST(Ldmatrix, CountsConflictsOfRows) {
  for (const int stride : {8, 24, 64}) {
    LaunchOptions options;
    options.count_banks = true;
    const LaunchResult result = RunToy(
        Shape(32, 32 * 64 * 2),
        [&] {
          const Shared<u16> tile(0);
          for (int i = Lane(); i < 32 * 64 / 2; i += 32) Shared<u32>(0).Store(i, 0);
          WarpBarrier();
          u32 r[4];
          LoadMatrix4(r, tile, Lane() * stride);
        },
        options);
    EXPECT_EQ(result.stats.AllBanks().conflicts(), stride == 64 ? 4 * 7 : 0) << stride;
  }
}

}  // namespace
}  // namespace regard::emulator
