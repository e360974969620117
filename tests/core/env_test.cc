// REGARD_* variables: what is read, and that nothing is ignored silently.

#include "src/core/env.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "regard/status.h"
#include "src/core/cpu_detect.h"

namespace regard {
namespace {

struct Parsed {
  EnvSettings settings;
  std::string warnings;
};

Parsed Parse(std::vector<std::string> entries) {
  std::vector<char*> environment;
  for (std::string& entry : entries) environment.push_back(entry.data());
  environment.push_back(nullptr);
  Parsed parsed;
  parsed.settings = ParseEnv(environment.data(), &parsed.warnings);
  return parsed;
}

TEST(Env, ReadsEveryKnownVariable) {
  const Parsed p = Parse({"PATH=/bin", "REGARD_BACKENDS=cpu.avx2,reference", "REGARD_CPU_ISA=avx512_bf16",
                          "REGARD_THREADS=3", "REGARD_TUNE=anything", "REGARD_LIBCUDA=/d/libcuda.so",
                          "REGARD_NVRTC=/n/libnvrtc.so", "REGARD_CUDA_CACHE=/c", "REGARD_CUDA_CACHE_BYTES=5000000000",
                          "REGARDLESS=1"});
  EXPECT_EQ(p.warnings, "");
  EXPECT_EQ(p.settings.backends, (std::vector<std::string>{"cpu.avx2", "reference"}));
  EXPECT_EQ(p.settings.cpu_isa, Isa::kAvx512Bf16);
  EXPECT_EQ(p.settings.threads, 3);
  EXPECT_EQ(p.settings.libcuda, "/d/libcuda.so");
  EXPECT_EQ(p.settings.nvrtc, "/n/libnvrtc.so");
  EXPECT_EQ(p.settings.cuda_cache, "/c");
  EXPECT_EQ(p.settings.cuda_cache_bytes, 5000000000);
}

TEST(Env, EmptyEnvironmentGivesNothing) {
  const Parsed p = Parse({});
  EXPECT_EQ(p.warnings, "");
  EXPECT_TRUE(p.settings.backends.empty());
  EXPECT_FALSE(p.settings.cpu_isa);
  EXPECT_FALSE(p.settings.threads);
}

TEST(Env, UnknownVariableIsNamedOnceWithTheNearestOne) {
  const Parsed p = Parse({"REGARD_THREAD=2", "REGARD_XYZZY=1"});
  EXPECT_EQ(std::count(p.warnings.begin(), p.warnings.end(), '\n'), 2);
  EXPECT_NE(p.warnings.find("REGARD_THREAD is ignored"), std::string::npos) << p.warnings;
  EXPECT_NE(p.warnings.find("nearest: REGARD_THREADS"), std::string::npos) << p.warnings;
  EXPECT_NE(p.warnings.find("REGARD_XYZZY is ignored"), std::string::npos) << p.warnings;
  EXPECT_FALSE(p.settings.threads);
}

TEST(Env, BadValuesAreNamedWithWhatIsExpectedAndLeaveTheSettingUnset) {
  for (const char* entry : {"REGARD_THREADS=0", "REGARD_THREADS=-1", "REGARD_THREADS=4097", "REGARD_THREADS=two",
                            "REGARD_THREADS=2x", "REGARD_THREADS=", "REGARD_THREADS=99999999999999999999",
                            "REGARD_CPU_ISA=avx1024", "REGARD_CPU_ISA=AVX2", "REGARD_CPU_ISA=", "REGARD_BACKENDS=",
                            "REGARD_BACKENDS=cpu,,reference", "REGARD_BACKENDS=cpu,", "REGARD_CUDA_CACHE_BYTES=1G",
                            "REGARD_CUDA_CACHE_BYTES=-1", "REGARD_CUDA_CACHE_BYTES="}) {
    const Parsed p = Parse({entry});
    EXPECT_NE(p.warnings.find(entry), std::string::npos) << entry << " gives: " << p.warnings;
    EXPECT_NE(p.warnings.find("expected"), std::string::npos) << p.warnings;
    EXPECT_FALSE(p.settings.threads || p.settings.cpu_isa || !p.settings.backends.empty() || p.settings.cuda_cache_bytes)
        << entry;
  }
  EXPECT_NE(Parse({"REGARD_CPU_ISA=avx521"}).warnings.find("nearest: avx512"), std::string::npos);
}

// In a forked child that has not read its environment yet: gtest runs suites named *DeathTest before all others.
// (The style that executes the program anew would need an emulator in front where tests are cross-built.)
TEST(EnvDeathTest, ProcessWarnsExactlyOnce) {
  GTEST_FLAG_SET(death_test_style, "fast");
  ASSERT_EXIT(
      {
        setenv("REGARD_TREADS", "2", 1);
        for (int i = 0; i < 3; ++i) Env();
        DefaultThreads(Env());
        std::exit(Env().threads ? 1 : 0);
      },
      testing::ExitedWithCode(0),
      "^regard: unknown environment variable REGARD_TREADS[^\n]*nearest: REGARD_THREADS.\n$");
}

TEST(Device, NamesOfIsas) {
  EXPECT_STREQ(Name(Isa::kScalar), "scalar");
  EXPECT_STREQ(Name(Isa::kNeon), "neon");
  EXPECT_STREQ(Name(Isa::kAvx2), "avx2");
  EXPECT_STREQ(Name(Isa::kAvx512), "avx512");
  EXPECT_STREQ(Name(Isa::kAvx512Bf16), "avx512_bf16");
}

TEST(Device, BestIsTheLastOfTheUsableIsas) {
  DeviceCaps caps;
  EXPECT_EQ(caps.Best(), Isa::kScalar);
  EXPECT_FALSE(caps.Has(Isa::kAvx2));
  caps.isas = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512};
  EXPECT_EQ(caps.Best(), Isa::kAvx512);
  EXPECT_TRUE(caps.Has(Isa::kAvx2));
  EXPECT_FALSE(caps.Has(Isa::kAvx512Bf16));
}

TEST(Device, CpuIsaLeavesItAndScalar) {
  const std::vector<Isa> detected = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};
  EnvSettings settings;
  EXPECT_EQ(UsableIsas(detected, settings), detected);
  settings.cpu_isa = Isa::kAvx2;
  EXPECT_EQ(UsableIsas(detected, settings), (std::vector<Isa>{Isa::kScalar, Isa::kAvx2}));
  settings.cpu_isa = Isa::kScalar;
  EXPECT_EQ(UsableIsas(detected, settings), std::vector<Isa>{Isa::kScalar});
}

TEST(Device, CpuIsaThatTheMachineLacksIsAnErrorWithTheAvailableOnes) {
  EnvSettings settings;
  settings.cpu_isa = Isa::kNeon;
  try {
    UsableIsas({Isa::kScalar, Isa::kAvx2}, settings);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.field(), "REGARD_CPU_ISA");
    EXPECT_NE(e.value().find("neon"), std::string::npos);
    EXPECT_NE(e.expected().find("scalar, avx2"), std::string::npos);
  }
}

TEST(Device, HostIsDescribedSensibly) {
  const DeviceCaps caps = DetectHost({});
  EXPECT_EQ(caps.type, DeviceType::kCpu);
  EXPECT_FALSE(caps.name.empty());
  EXPECT_TRUE(caps.Has(Isa::kScalar));
  EXPECT_TRUE(std::is_sorted(caps.isas.begin(), caps.isas.end()));
  EXPECT_EQ(caps.threads, AvailableCpus());
  EXPECT_GE(caps.l1_bytes, 4 << 10);
  EXPECT_GE(caps.l2_bytes, caps.l1_bytes);
  EXPECT_GT(caps.read_gbps, 0);
  EXPECT_GT(caps.fma_gflops, 0);
  EXPECT_FALSE(caps.measured);
#if defined(__x86_64__)
  // The compiler's own detection, for what g++ 12 and clang 14 both know.
  __builtin_cpu_init();
  EXPECT_EQ(caps.Has(Isa::kAvx2), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  EXPECT_EQ(caps.Has(Isa::kAvx512), __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"));
#elif defined(__aarch64__)
  EXPECT_TRUE(caps.Has(Isa::kNeon));
#endif
}

TEST(Device, ThreadsOfTheEnvironmentWin) {
  EnvSettings settings;
  settings.threads = 7;
  EXPECT_EQ(DetectHost(settings).threads, 7);
  EXPECT_EQ(DefaultThreads(settings), 7);
}

}  // namespace
}  // namespace regard
