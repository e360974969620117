// Threads, warps, barriers, shuffles, copies and views of the emulator, by toy kernels with known answers.
#include "tests/emulator/engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "ptx/async.h"
#include "ptx/math.h"
#include "ptx/memory.h"
#include "ptx/shuffle.h"
#include "ptx/thread.h"
#include "regard/status.h"
#include "tests/emulator/device_array.h"
#include "tests/emulator/run_toy.h"

namespace regard::emulator {
namespace {

using namespace cuda;

TEST(Engine, EveryThreadOfEveryBlockRunsOnceAndKnowsItsPlace) {
  LaunchShape shape = Shape(96);
  shape.grid[0] = 3, shape.grid[1] = 2, shape.grid[2] = 5;
  for (const int host_threads : {1, 2, 7}) {
    const DeviceArray<u32> counts(std::vector<u32>(3 * 2 * 5 * 96, 0));
    const auto body = [&] {
      const i64 block = (static_cast<i64>(BlockZ()) * 2 + BlockY()) * GridX() + BlockX();
      EXPECT_EQ(Warp() * 32 + Lane(), ThreadIndex());
      const Global<u32> out(counts.address());
      const i64 i = block * 96 + ThreadIndex();
      out.Store(i, out.Load(i) + 1);
    };
    LaunchOptions options;
    options.host_threads = host_threads;
    const LaunchResult result = RunToy(shape, body, options);
    EXPECT_EQ(result.stats.blocks, 30);
    EXPECT_EQ(counts.Values(), std::vector<u32>(3 * 2 * 5 * 96, 1)) << host_threads;
  }
}

TEST(Engine, RefusesShapesThatNoChipTakes) {
  const auto nothing = [] {};
  for (const int threads : {0, -32, 31, 33, 1056}) EXPECT_THROW(RunToy(Shape(threads), nothing), Error) << threads;
  EXPECT_THROW(RunToy(Shape(32, (227 << 10) + 1), nothing), Error);
  LaunchShape shape = Shape();
  shape.grid[1] = 0;
  EXPECT_THROW(RunToy(shape, nothing), Error);
  EXPECT_EQ(RunToy(Shape(1024, 227 << 10), nothing).stats.blocks, 1);
}

TEST(Engine, ShufflesGiveTheOtherLanesValue) {
  const DeviceArray<i32> out(3 * 64);
  RunToy(Shape(64), [&] {
    const Global<i32> results(out.address());
    results.Store(ThreadIndex(), ShuffleXor(100 + ThreadIndex(), 5));
    results.Store(64 + ThreadIndex(), ShuffleFrom(ThreadIndex(), (Lane() * 7) % 32));
    float sum = static_cast<float>(ThreadIndex());
    for (int mask = 16; mask > 0; mask /= 2) sum += ShuffleXor(sum, mask);
    results.Store(128 + ThreadIndex(), static_cast<i32>(sum));
  });
  const std::vector<i32> values = out.Values();
  for (int t = 0; t < 64; ++t) {
    const int warp = t / 32 * 32, lane = t % 32;
    EXPECT_EQ(values[static_cast<std::size_t>(t)], 100 + warp + (lane ^ 5));
    EXPECT_EQ(values[static_cast<std::size_t>(64 + t)], warp + lane * 7 % 32);
    EXPECT_EQ(values[static_cast<std::size_t>(128 + t)], 31 * 16 + 32 * warp);
  }
}

TEST(Engine, BallotsStayInTheWarpAndAnyReachesTheBlock) {
  const DeviceArray<u32> out(4 * 96);
  RunToy(Shape(96), [&] {
    const Global<u32> results(out.address());
    results.Store(ThreadIndex(), Ballot(ThreadIndex() % 3 == 0));
    results.Store(96 + ThreadIndex(), BlockAny(ThreadIndex() == 95));
    results.Store(2 * 96 + ThreadIndex(), BlockAny(false));
    results.Store(3 * 96 + ThreadIndex(), BlockAny(true));
  });
  const std::vector<u32> values = out.Values();
  for (std::size_t t = 0; t < 96; ++t) {
    u32 expected = 0;
    for (std::size_t l = 0; l < 32; ++l) expected |= static_cast<u32>((t / 32 * 32 + l) % 3 == 0) << l;
    EXPECT_EQ(values[t], expected);
    EXPECT_EQ(values[96 + t], 1u);
    EXPECT_EQ(values[2 * 96 + t], 0u);
    EXPECT_EQ(values[3 * 96 + t], 1u);
  }
}

// A block's sum over many barriers, whatever the order of its warps.
TEST(Engine, SeedsChangeTheOrderOfWarpsAndNoResult) {
  std::vector<std::vector<u32>> orders;
  for (const std::uint64_t seed : {0, 1, 2, 3, 4, 5}) {
    const DeviceArray<u32> order(std::vector<u32>(9, 0));
    const DeviceArray<u32> out(256);
    LaunchOptions options;
    options.seed = seed;
    RunToy(
        Shape(256, 256 * 4),
        [&] {
          const Shared<u32> cells(0);
          const Global<u32> arrivals(order.address());
          if (Lane() == 0) {  // plain global memory: its order is what differs
            const u32 n = arrivals.Load(0);
            arrivals.Store(0, n + 1);
            arrivals.Store(1 + n, static_cast<u32>(Warp()));
          }
          cells.Store(ThreadIndex(), static_cast<u32>(ThreadIndex()));
          BlockBarrier();
          for (int step = 128; step > 0; step /= 2) {
            if (ThreadIndex() < step)
              cells.Store(ThreadIndex(), cells.Load(ThreadIndex()) + cells.Load(ThreadIndex() + step));
            BlockBarrier();
          }
          Global<u32>(out.address()).Store(ThreadIndex(), cells.Load(0));
        },
        options);
    EXPECT_EQ(out.Values(), std::vector<u32>(256, 255 * 128));
    const std::vector<u32> values = order.Values();
    orders.emplace_back(values.begin() + 1, values.end());
    EXPECT_EQ(std::accumulate(orders.back().begin(), orders.back().end(), 0u), 28u);
  }
  EXPECT_EQ(orders[0], (std::vector<u32>{0, 1, 2, 3, 4, 5, 6, 7}));
  int other = 0;
  for (const auto& order : orders) other += order != orders[0];
  EXPECT_GE(other, 4);
}

TEST(Engine, CopiesArriveGroupByGroupAndZerosWhereNotValid) {
  std::vector<float> values(64 * 4);
  std::iota(values.begin(), values.end(), 1.0f);
  for (const int arch : {75, 80, 90}) {
    const DeviceArray<float> in(values), out(3 * 32 * 4);
    RunToy(Shape(32, 3 * 32 * 16, arch), [&] {
      const Shared<float> slots(0);
      const Global<const float> from(in.address());
      const Global<float> to(out.address());
      for (int group = 0; group < 3; ++group) {
        CopyAsync16(slots, (group * 32 + Lane()) * 4, from, (group * 16 + Lane()) * 4, group < 2 || Lane() % 2 == 0);
        CopyAsyncCommit();
      }
      CopyAsyncWait<2>();
      to.Store16(Lane() * 4, slots.Load16(Lane() * 4));
      CopyAsyncWait<0>();
      for (int group = 1; group < 3; ++group)
        to.Store16((group * 32 + Lane()) * 4, slots.Load16((group * 32 + Lane()) * 4));
    });
    const std::vector<float> got = out.Values();
    for (int group = 0; group < 3; ++group) {
      for (int n = 0; n < 128; ++n) {
        const bool valid = group < 2 || n / 4 % 2 == 0;
        EXPECT_EQ(got[static_cast<std::size_t>(group * 128 + n)],
                  valid ? static_cast<float>(1 + group * 64 + n) : 0.0f);
      }
    }
  }
}

// The invalid copy's source lies past the end of the allocation: it is not read.
TEST(Engine, ACopyThatIsNotValidReadsNothing) {
  const DeviceArray<float> in(std::vector<float>(4, 1.0f)), out(32);
  RunToy(Shape(32, 32 * 16), [&] {
    CopyAsync16(Shared<float>(0), Lane() * 4, Global<const float>(in.address()), Lane() * 4, Lane() == 0);
    CopyAsyncCommit();
    CopyAsyncWait<0>();
    Global<float>(out.address()).Store(Lane(), Shared<float>(0).Load(Lane() * 4));
  });
  std::vector<float> expected(32, 0.0f);
  expected[0] = 1;
  EXPECT_EQ(out.Values(), expected);
}

TEST(Engine, AtomicsOfManyBlocksKeepEveryBit) {
  const DeviceArray<u32> word(std::vector<u32>(1, 0));
  LaunchShape shape = Shape();
  shape.grid[0] = 32;
  LaunchOptions options;
  options.host_threads = 2;
  RunToy(
      shape,
      [&] {
        if (Lane() == BlockX()) AtomicOr(Global<u32>(word.address()), 0, 1u << BlockX());
      },
      options);
  EXPECT_EQ(word.Values()[0], 0xffffffffu);
}

TEST(Engine, ViewsOfEverySizeStoreAndLoad) {
  const DeviceArray<u8> bytes(64);
  RunToy(Shape(32, 256), [&] {
    const int t = Lane();
    Shared<u8>(0).Store(t, static_cast<u8>(t));
    Shared<u16>(64).Store(t, static_cast<u16>(1000 + t));
    (Shared<u16>(64) + 32).Store(t, 7);
    EXPECT_EQ(Shared<u8>(0).Load(t), t);
    EXPECT_EQ(Shared<u16>(64).Load(t), 1000 + t);
    EXPECT_EQ(Shared<u16>(0).Load(64 + t), 7);
    (Global<u8>(bytes.address()) + 32).Store(t, static_cast<u8>(t));
    Global<u8>(bytes.address()).Store(t, static_cast<u8>(2 * t));
    EXPECT_EQ(Global<const u8>(bytes.address() + 32).Load(t), t);
  });
  EXPECT_EQ(bytes.Values()[31], 62);
}

TEST(Engine, MathIsWhatTheWrappersPromise) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Infinity(), infinity);
  EXPECT_EQ(Larger(nan, 1), 1);
  EXPECT_EQ(Larger(-1, nan), -1);
  EXPECT_TRUE(std::isnan(Larger(nan, nan)));
  EXPECT_EQ(Exp2(-infinity), 0);
  EXPECT_EQ(Exp2(-126), 0x1p-126f);
  EXPECT_EQ(Exp2(-126.5f), 0);
  EXPECT_EQ(Exp2(10), 1024);
  EXPECT_TRUE(std::isnan(Exp2(nan)));
  EXPECT_EQ(Log2(0), -infinity);
  EXPECT_EQ(Log2(8), 3);
  EXPECT_EQ(Fma(0x1.000002p0f, 0x1.000002p0f, -0x1.000004p0f), 0x1p-46f);  // (1 + u)^2 - (1 + 2u) = u^2
  EXPECT_EQ(MultiplyHigh(0xffffffffu, 0xffffffffu), 0xfffffffeu);
  EXPECT_EQ(Divide(1, 3), 1.0f / 3.0f);
}

TEST(BankConflicts, AreCountedByLine) {
  LaunchOptions options;
  options.count_banks = true;
  int fill = 0, column = 0, twice = 0, row = 0, same = 0, four = 0;  // lines
  const LaunchResult result = RunToy(
      Shape(64, 32 * 32 * 4),
      [&] {
        const Shared<float> cells(0);
        if (Warp() == 1) return;
        fill = __LINE__ + 1;
        for (int i = 0; i < 32; ++i) cells.Store(i * 32 + Lane(), 1);
        WarpBarrier();
        column = __LINE__ + 1;
        (void)cells.Load(Lane() * 32);
        twice = __LINE__ + 1;
        (void)cells.Load(Lane() * 2 % 32);
        row = __LINE__ + 1;
        (void)cells.Load16(Lane() * 4);
        same = __LINE__ + 1;
        (void)cells.Load16(Lane() / 8 * 4);
        four = __LINE__ + 1;
        if (Lane() < 4) (void)cells.Load(Lane() * 32);
      },
      options);
  const auto at = [&](int line) { return result.stats.banks.at("engine_test.cc:" + std::to_string(line)); };
  EXPECT_EQ(at(fill).instructions, 32);
  EXPECT_EQ(at(fill).conflicts(), 0);
  EXPECT_EQ(at(column).instructions, 1);
  EXPECT_EQ(at(column).conflicts(), 31);  // all in one bank
  EXPECT_EQ(at(twice).conflicts(), 0);    // even banks, each word for two lanes
  EXPECT_EQ(at(row).ideal, 4);            // 512 bytes, a quarter-warp at a time
  EXPECT_EQ(at(row).conflicts(), 0);
  EXPECT_EQ(at(same).conflicts(), 0);
  EXPECT_EQ(at(four).conflicts(), 3);
  EXPECT_EQ(result.stats.AllBanks().conflicts(), 34);
}

}  // namespace
}  // namespace regard::emulator
