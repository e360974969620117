// A prepared case, its parts, and its kernel alone compute what the whole launch computes.
#include "cli/prepared_case.h"

#include <gtest/gtest.h>

#include <memory>

#include "cli/kernel_alone.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

class PreparedCaseTest : public ::testing::Test {
 protected:
  std::unique_ptr<Executor> executor_{MakeExecutor(ExecutorKind::kSerial, 1)};
  PreparedCase Made(const std::string& text) { return PreparedCase(text, "", *executor_); }
};

TEST_F(PreparedCaseTest, SequencesOneByOneWriteTheOutputOfTheWholeBatch) {
  for (const char* text : {"decode b=4 sq=1 skv=70 hq=4 hkv=2 d=32 dtype=bf16 page=16 lens=uniform(17,70)",
                           "mixed b=3 sq=20 skv=90 hq=4 hkv=2 d=32 dtype=f32 page=4 causal varlen qlens=20,1*2 "
                           "lens=20,90*2"}) {
    PreparedCase whole = Made(text);
    whole.Launch();
    const std::uint64_t expected = cases::Checksum(whole.args().out);
    whole.PoisonOutput();
    double pairs = 0, bytes = 0;
    for (std::int64_t b = 0; b < whole.sequences(); ++b) {
      const PreparedCase part(whole, b);
      part.Launch();
      EXPECT_TRUE(part.Check().ok()) << part.text();
      EXPECT_EQ(part.sequences(), 1);
      pairs += part.work().pairs;
      bytes += part.work().bytes;
    }
    EXPECT_EQ(cases::Checksum(whole.args().out), expected) << text;
    EXPECT_EQ(pairs, whole.work().pairs);
    EXPECT_EQ(bytes, whole.work().bytes);
  }
}

TEST_F(PreparedCaseTest, PartsOfACaseWithTensorsBesideQKVAreRefused) {
  const PreparedCase dense = Made("decode b=2 sq=1 skv=9 hq=2 hkv=1 d=8");
  EXPECT_THROW(PreparedCase(dense, 0), Error);
  const PreparedCase alibi = Made("decode b=2 sq=1 skv=9 hq=2 hkv=1 d=8 page=4 alibi");
  EXPECT_THROW(PreparedCase(alibi, 0), Error);
}

TEST_F(PreparedCaseTest, WorkCountsVisiblePairsOfAllHeads) {
  const PreparedCase causal = Made("prefill b=2 sq=10 skv=10 hq=6 hkv=3 d=16 dv=8 dtype=f32 causal");
  EXPECT_EQ(causal.work().pairs, 2 * 6 * 55);
  EXPECT_EQ(causal.work().flops, 2 * 6 * 55 * 2 * (16 + 8));
  EXPECT_EQ(causal.work().bytes, 2 * 10 * 3 * (16 + 8) * 4);
}

TEST_F(PreparedCaseTest, TheKernelAloneWritesTheOutputOfTheLaunch) {
  PreparedCase tiny = Made("decode b=1 sq=1 skv=16 hq=8 hkv=2 d=64 dtype=f32");
  tiny.Launch();
  const std::uint64_t expected = cases::Checksum(tiny.args().out);
  tiny.PoisonOutput();
  const KernelAlone kernel(tiny);
  tiny.PoisonOutput();
  EXPECT_GT(kernel.Seconds(3), 0);
  EXPECT_EQ(cases::Checksum(tiny.args().out), expected);
}

TEST_F(PreparedCaseTest, TheKernelAloneWantsACaseOfOneTaskAndACpuKernel) {
  const PreparedCase two = Made("decode b=2 sq=1 skv=16 hq=2 hkv=2 d=64 dtype=f32");
  EXPECT_THROW(KernelAlone{two}, Error);
  const PreparedCase reference("decode b=1 sq=1 skv=16 hq=2 hkv=2 d=64 dtype=f32", "reference", *executor_);
  EXPECT_THROW(KernelAlone{reference}, Error);
}

}  // namespace
}  // namespace regard::cli
