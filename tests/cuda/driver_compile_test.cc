// The real NVRTC: cubins, refusals in words, and what the cubin reader finds in them.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "src/cuda/driver/cubin.h"
#include "src/cuda/driver/nvrtc.h"
#include "src/cuda/driver/occupancy.h"
#include "tests/cuda/support.h"

namespace regard::cuda {
namespace {

KernelInstance WithText(const std::string& text) {
  KernelInstance instance;
  instance.name = "written";
  instance.threads = 128;
  instance.text = "// instance written\n" + text;
  return instance;
}

TEST(Compile, ToyBecomesACubinForEachArchitectureThatSaysItsResources) {
  REGARD_NEEDS_NVRTC();
  for (const Arch& arch : {Arch(70), Arch(75), Arch(80), Arch(86), Arch(89), Arch(90), Arch(90, true), Arch(100),
                           Arch(120)}) {
    if (!CanCompile(RealNvrtc(), arch).ok) continue;
    const Compiled compiled = Compile(Toy(), arch, RealNvrtc());
    const CubinInfo info = ReadCubin(compiled.cubin);
    EXPECT_EQ(info.sm, arch.sm);
    EXPECT_EQ(info.max_threads, 128);
    EXPECT_EQ(info.shared_bytes, 64u * 4) << arch.Name();
    EXPECT_EQ(info.parameter_bytes, 16u);
    EXPECT_EQ(info.stack_bytes, 0u);
    EXPECT_GE(info.registers, 4);
    EXPECT_GT(info.code_bytes, 0u);
    // ptxas says the same in its log.
    EXPECT_NE(compiled.log.find("Used " + std::to_string(info.registers) + " registers"), std::string::npos)
        << compiled.log;
    EXPECT_NE(compiled.log.find("256 bytes smem"), std::string::npos) << compiled.log;
    ASSERT_TRUE(SpillsInLog(compiled.log).has_value()) << compiled.log;
    EXPECT_EQ(SpillsInLog(compiled.log)->bytes(), 0u);
  }
}

TEST(Compile, KernelWithoutStaticSharedMemoryReportsNone) {
  REGARD_NEEDS_NVRTC();
  const KernelInstance plain = WithText("extern \"C\" __global__ void regard_kernel(int* x) { *x = 1; }\n");
  for (const int sm : {80, 90}) {
    const CubinInfo info = ReadCubin(Compile(plain, sm, RealNvrtc()).cubin);
    EXPECT_EQ(info.shared_bytes, 0u) << sm;
    EXPECT_EQ(info.max_threads, 0) << sm;
    EXPECT_EQ(info.parameter_bytes, 8u) << sm;
  }
}

TEST(Compile, SpillsAndTheirStackAreReported) {
  REGARD_NEEDS_NVRTC();
  // 128 values that live across a barrier, in a block of 1024 threads: 64 registers a thread.
  const KernelInstance greedy = WithText(
      "extern \"C\" __global__ __launch_bounds__(1024) void regard_kernel(float* x) {\n"
      "  float v[128];\n"
      "  for (int i = 0; i < 128; ++i) v[i] = x[i * 1024 + threadIdx.x];\n"
      "  __syncthreads();\n"
      "  for (int i = 0; i < 128; ++i) x[i * 1024 + threadIdx.x] = v[i] + v[(i * 37 + 11) % 128];\n"
      "}\n");
  const Compiled compiled = Compile(greedy, 80, RealNvrtc());
  const CubinInfo info = ReadCubin(compiled.cubin);
  EXPECT_LE(info.registers, 64);
  EXPECT_GE(info.stack_bytes, 200u);
  ASSERT_TRUE(SpillsInLog(compiled.log).has_value());
  EXPECT_GE(SpillsInLog(compiled.log)->store_bytes, 200u);
  EXPECT_GE(SpillsInLog(compiled.log)->load_bytes, 200u);
}

TEST(Compile, RefusedSourceGivesTheInstanceAndTheFirstErrors) {
  REGARD_NEEDS_NVRTC();
  const std::string error = ErrorOf([] {
    Compile(WithText("extern \"C\" __global__ void regard_kernel(int* x) { *x = nowhere; }\n"), 80, RealNvrtc());
  });
  EXPECT_TRUE(error.starts_with("cuda.compile: written for sm_80: written.cu(2): error: ")) << error;
  EXPECT_NE(error.find("nowhere"), std::string::npos) << error;
  EXPECT_EQ(error.find("detected in the compilation"), std::string::npos) << error;
}

TEST(Compile, NoFileIsReadOnlyEmbeddedHeadersAreSeen) {
  REGARD_NEEDS_NVRTC();
  const KernelInstance includes = WithText(
      "#include \"part.h\"\nextern \"C\" __global__ void regard_kernel(int* x) { *x = kPart; }\n");
  const EmbeddedFile part{"part.h", "constexpr int kPart = 7;\n"};
  EXPECT_FALSE(Compile(includes, 80, RealNvrtc(), {&part, 1}).cubin.empty());
  EXPECT_NE(ErrorOf([&] { Compile(includes, 80, RealNvrtc(), {}); }).find("part.h"), std::string::npos);
  EXPECT_NE(ErrorOf([&] { Compile(WithText("#include <stdint.h>\n"), 80, RealNvrtc()); }).find("stdint.h"),
            std::string::npos);
}

TEST(Compile, MultiplicationsAndAdditionsAreNotFused) {
  REGARD_NEEDS_NVRTC();
  const std::vector<std::string> options = CompileOptions(80);
  EXPECT_NE(std::find(options.begin(), options.end(), "--fmad=false"), options.end());
}

TEST(Compile, ArchitectureThatNvrtcLacksIsRefusedBeforeCompiling) {
  REGARD_NEEDS_NVRTC();
  const std::string error = ErrorOf([] { Compile(Toy(), 30, RealNvrtc()); });
  EXPECT_TRUE(error.starts_with("cuda: NVRTC ")) << error;
}

TEST(Compile, EveryHeaderOfTheKernelsCompilesAlone) {
  REGARD_NEEDS_NVRTC();
  for (const EmbeddedFile& file : EmbeddedSources().files) {
    const KernelInstance alone = WithText("#include \"" + std::string(file.name) +
                                          "\"\nextern \"C\" __global__ void regard_kernel(int* x) { *x = 1; }\n");
    EXPECT_EQ(ErrorOf([&] { Compile(alone, 80, RealNvrtc()); }), "nothing") << file.name;
  }
}

TEST(Cubin, EveryTruncationAndEveryDamagedByteIsReadInsideTheBytesOrRefused) {
  REGARD_NEEDS_NVRTC();
  const std::string cubin = Compile(Toy(), 80, RealNvrtc()).cubin;
  for (std::size_t bytes = 0; bytes < cubin.size(); bytes += 13) {
    // A copy of exactly this size: a sanitizer would see a read behind it.
    const std::vector<char> cut(cubin.begin(), cubin.begin() + static_cast<std::ptrdiff_t>(bytes));
    const std::string error = ErrorOf([&] { ReadCubin({cut.data(), cut.size()}); });
    EXPECT_TRUE(bytes >= 64 || error.starts_with("cuda.cubin: ")) << bytes;
  }
  for (std::size_t at = 0; at < cubin.size(); ++at) {
    std::string damaged = cubin;
    damaged[at] = static_cast<char>(damaged[at] ^ 0xff);
    ErrorOf([&] { ReadCubin(damaged); });
  }
}

TEST(Cubin, OtherBytesAndOtherEntryPointsAreRefused) {
  EXPECT_TRUE(ErrorOf([] { ReadCubin(""); }).starts_with("cuda.cubin: the ELF header lies outside the file"));
  EXPECT_TRUE(ErrorOf([] { ReadCubin(std::string(1000, 'x')); }).starts_with("cuda.cubin: the bytes are no ELF file"));
  REGARD_NEEDS_NVRTC();
  EXPECT_TRUE(ErrorOf([] { ReadCubin(Compile(Toy(), 80, RealNvrtc()).cubin, "absent"); })
                  .starts_with("cuda.cubin: there is no absent"));
}

TEST(Cubin, SpillsOfAllFunctionsInALogAreAdded) {
  EXPECT_FALSE(SpillsInLog("").has_value());
  EXPECT_FALSE(SpillsInLog("ptxas info : Used 10 registers\n").has_value());
  const auto spills = SpillsInLog(
      "    0 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n"
      "ptxas .     16 bytes stack frame, 12 bytes spill stores, 100 bytes spill loads");
  ASSERT_TRUE(spills.has_value());
  EXPECT_EQ(spills->store_bytes, 16u);
  EXPECT_EQ(spills->load_bytes, 108u);
}

TEST(Occupancy, IsBoundByTheScarcestResource) {
  const MultiprocessorLimits a100 = *LimitsOf(80);
  const auto blocks = [&](int registers, unsigned shared, int threads) {
    const Occupancy o = OccupancyOf(a100, registers, shared, threads);
    return std::pair(o.blocks, o.limited_by);
  };
  EXPECT_EQ(blocks(32, 0, 128), std::pair(16, std::string("registers"))) << "64 warps x 32 x 32 = all 65536 registers";
  EXPECT_EQ(blocks(255, 0, 128), std::pair(2, std::string("registers"))) << "8 warps of 8192 registers";
  EXPECT_EQ(blocks(168, 0, 128), std::pair(3, std::string("registers"))) << "12 warps of 5376 registers";
  EXPECT_EQ(blocks(16, 0, 1024), std::pair(2, std::string("warps")));
  EXPECT_EQ(blocks(16, 0, 32), std::pair(32, std::string("blocks")));
  EXPECT_EQ(blocks(64, 100 * 1024, 128), std::pair(1, std::string("shared memory")));
  EXPECT_EQ(blocks(64, 81 * 1024, 128), std::pair(2, std::string("shared memory"))) << "2 x (81 + 1) = 164 KB";
  EXPECT_EQ(blocks(64, 164 * 1024, 128), std::pair(0, std::string("shared memory"))) << "163 KB is a block's most";
  EXPECT_EQ(OccupancyOf(a100, 32, 0, 2048).blocks, 0);
  EXPECT_EQ(OccupancyOf(a100, 128, 0, 128).fraction, 0.25);
}

TEST(Occupancy, LimitsAreOfTheArchitectureOrOfItsNearestOlderKin) {
  EXPECT_EQ(LimitsOf(75)->shared_kbytes, 64);
  EXPECT_EQ(LimitsOf(90)->shared_block_kbytes, 227);
  EXPECT_EQ(LimitsOf(122)->sm, 121);
  EXPECT_FALSE(LimitsOf(60).has_value());
  EXPECT_FALSE(LimitsOf(200).has_value());
}

}  // namespace
}  // namespace regard::cuda
