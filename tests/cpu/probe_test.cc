// The roof probes do the work that they claim: every byte read once, by every loop of every instruction set.
#include "src/cpu/probe/probe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "src/core/cpu_detect.h"
#include "src/cpu/probe/roof.h"

namespace regard::probe {
namespace {

constexpr std::size_t kSizes[] = {1, 7, 8, 63, 64, 65, 127, 128, 1000, 4096, 16 * 64 * 2, 16 * 64 * 3 + 5, 100003};
constexpr Prefetch kPrefetches[] = {{}, {64, false}, {512, true}, {1 << 20, true}};

// Bytes that start at an odd address and have unknown neighbours on both sides.
std::vector<std::byte> Noise(std::size_t bytes) {
  std::vector<std::byte> noise(bytes + 2);
  std::uint32_t x = 12345;
  for (std::byte& b : noise) {
    x = x * 1664525u + 1013904223u;
    b = static_cast<std::byte>(x >> 24);
  }
  return noise;
}

// The law of ProbeTable: 8-byte words from the chunk's start, a short last word filled with zeros.
std::uint64_t PlainXor(Chunk chunk) {
  std::uint64_t sum = 0;
  for (std::size_t at = 0; at < chunk.bytes; at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, chunk.data + at, std::min<std::size_t>(8, chunk.bytes - at));
    sum ^= word;
  }
  return sum;
}

std::vector<const ProbeTable*> TablesOfThisCpu() {
  std::vector<const ProbeTable*> tables;
  for (const Isa isa : DetectIsas()) {
    if (const ProbeTable* table = ProbesFor(isa)) tables.push_back(table);
  }
  return tables;
}

TEST(Probe, EveryDetectedIsaHasProbesOfItsName) {
  for (const Isa isa : DetectIsas()) {
    ASSERT_NE(ProbesFor(isa), nullptr) << Name(isa);
    EXPECT_EQ(ProbesFor(isa)->isa, isa);
    EXPECT_EQ(ProbesFor(isa)->dot_bf16 != nullptr, isa == Isa::kAvx512Bf16);
  }
}

TEST(Probe, StreamsReadEveryByteOnce) {
  for (const std::size_t bytes : kSizes) {
    const std::vector<std::byte> noise = Noise(bytes);
    const Chunk chunk{noise.data() + 1, bytes};
    for (const ProbeTable* table : TablesOfThisCpu()) {
      for (const int streams : {1, 2, 4, 8, 16}) {
        for (const Prefetch& prefetch : kPrefetches) {
          EXPECT_EQ(table->read_streams(chunk, streams, prefetch), PlainXor(chunk))
              << Name(table->isa) << " " << streams << " streams, " << bytes << " bytes, lead " << prefetch.lead_bytes;
        }
      }
    }
  }
}

TEST(Probe, ChunksReadEveryByteOnceAloneAndInGroups) {
  const std::vector<std::byte> noise = Noise(600000);
  std::vector<Chunk> chunks;
  std::uint64_t expected = 0;
  std::size_t at = 1;
  for (int n = 0; n < 40; ++n) {  // all sizes in turn, then a run of equal ones
    const std::size_t bytes = n < 20 ? kSizes[static_cast<std::size_t>(n) % (std::size(kSizes) - 1)] : 2048;
    chunks.push_back({noise.data() + at, bytes});
    expected ^= PlainXor(chunks.back());
    at += bytes + 11;
  }
  ASSERT_LT(at, noise.size());
  std::vector<ChunkWalk> walks;
  for (const Prefetch& prefetch : kPrefetches) walks.push_back({1, prefetch});
  for (const int group : {2, 3, 8, 16, 64}) {
    for (const int ahead : {0, 1, 2, 9}) {
      for (const bool by_rows : {false, true}) walks.push_back({group, {}, ahead, by_rows});
    }
  }
  for (const ProbeTable* table : TablesOfThisCpu()) {
    for (const ChunkWalk& walk : walks) {
      for (const std::size_t count : {chunks.size(), std::size_t{1}}) {
        EXPECT_EQ(table->read_chunks(chunks.data(), count, walk), count == 1 ? PlainXor(chunks[0]) : expected)
            << Name(table->isa) << " groups of " << walk.group << ", ahead " << walk.groups_ahead << walk.by_rows;
      }
    }
  }
}

TEST(Probe, FlopsGrowWithSteps) {
  for (const ProbeTable* table : TablesOfThisCpu()) {
    EXPECT_GT(table->fma_f32(10), 0);
    EXPECT_EQ(table->fma_f32(20), 2 * table->fma_f32(10));
    if (table->dot_bf16 != nullptr) {
      EXPECT_EQ(table->dot_bf16(20), 2 * table->dot_bf16(10));
    }
  }
}

TEST(Roof, CountsTheBytesOfItsChunksForAnyThreads) {
  const std::vector<std::byte> noise = Noise(1 << 20);
  for (const int threads : {1, 3}) {
    const std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kStdThread, threads));
    for (const ReadKind kind : {ReadKind::kStreams, ReadKind::kChunks}) {
      ReadRoof roof(*executor, Isa::kAvx512Bf16, {{noise.data(), 600001}, {noise.data() + 700000, 37}}, kind);
      EXPECT_EQ(roof.bytes(), 600038u);
      EXPECT_GT(roof.Run(), 0);
      EXPECT_FALSE(roof.variant().empty());
    }
  }
}

TEST(Roof, NothingToReadHasNoRate) {
  const std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kSerial, 1));
  ReadRoof roof(*executor, Isa::kScalar, {}, ReadKind::kStreams);
  EXPECT_EQ(roof.Run(), 0);
}

TEST(Roof, FlopsAreMeasuredWhereTheIsaHasTheInstruction) {
  const std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kSerial, 1));
  EXPECT_GT(FlopsRoof(*executor, Isa::kScalar, FlopsKind::kFmaF32, 0.001), 0);
  EXPECT_EQ(FlopsRoof(*executor, Isa::kScalar, FlopsKind::kDotBf16, 0.001), 0);
  const PipeCheck check = CheckPipes(Isa::kScalar, FlopsKind::kFmaF32);
  EXPECT_GT(check.clock_hz, 0);
  EXPECT_NEAR(check.per_cycle, check.fraction * check.pipes, 1e-9 * check.per_cycle);
}

TEST(Roof, AnIsaThatTheCpuLacksFallsBackToOneThatItHas) {
  for (const Isa isa : {Isa::kScalar, Isa::kNeon, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    const Isa runnable = Runnable(isa);
    EXPECT_LE(runnable, isa);
    EXPECT_NE(ProbesFor(runnable), nullptr);
  }
}

}  // namespace
}  // namespace regard::probe
