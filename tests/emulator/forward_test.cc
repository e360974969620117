// The library's whole path on pretended GPUs: Select, Plan, Launch on device tensors, the driver and the compiler
// faked, the kernels run by the emulator, results held to the accuracy rule.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "regard/attention.h"
#include "regard/device.h"
#include "src/backend/kernel_info.h"
#include "src/cases/cases.h"
#include "src/cases/oracle.h"
#include "src/problem/sequence.h"
#include "src/reference/reference.h"
#include "tests/emulator/fake/control.h"
#include "tests/emulator/forward_cases.h"
#include "tests/emulator/forward_runner.h"

namespace regard::emulator {
namespace {

constexpr int kShards = 7;  // no multiple of the number of GPUs

// New keys written by the reference, so that the oracle sees what attention should see.
void Append(const Problem& p, const AttentionArgs& args) {
  std::vector<Sequence> sequences(static_cast<std::size_t>(BatchOf(args)));
  std::vector<std::byte> scratch(ResolveScratchBytes(p));
  ResolveArgs(p, args, true, sequences, scratch);
  reference::AppendKv(p, args, sequences);
}

// The first element in which caches differ; rotated ones may differ by one rounding.
std::string CacheDifference(const char* name, const TensorView& got, const TensorView& expected, bool rotated) {
  for (std::int64_t n = 0; n < got.Elements(); ++n) {
    const float x = LoadFloat(got.data, got.dtype, n), y = LoadFloat(expected.data, expected.dtype, n);
    if (x == y || (x != x && y != y)) continue;
    const float step = got.dtype == DType::kBF16  ? 0x1p-7f
                       : got.dtype == DType::kF16 ? 0x1p-10f
                       : IsFp8(got.dtype)         ? 0.25f
                                                  : 1e-5f;
    if (rotated && std::abs(x - y) <= step * std::max(1.0f, std::abs(y))) continue;
    return std::string(name) + ", element " + std::to_string(n) + ": got " + std::to_string(x) + " expected " +
           std::to_string(y);
  }
  return {};
}

// Runs one case; what went wrong, or nothing.
std::string EmulateForward(const ForwardCase& c) {
  const Problem& p = c.problem;
  cases::Case host = cases::MakeCase(p);
  cases::Case judged;
  if (p.append) {
    judged = host.Clone();
    Append(p, judged.args());
  }
  const cases::Oracle oracle(p, p.append ? judged.args() : host.args());
  cases::PoisonOutputs(host.args());
  const Outcome outcome = RunOnDevice(p, host.args(), c.device);
  const auto told = [&](const std::string& wrong) { return wrong.empty() ? wrong : outcome.kernel + ": " + wrong; };
  if (!outcome.Wrong().empty()) return told(outcome.Wrong());
  if (!outcome.kernel.starts_with("cuda.")) return told("no CUDA kernel");
  const cases::Accuracy accuracy = oracle.Compare(host.args());
  if (!accuracy.ok()) return told(accuracy.where);
  if (!p.append) return {};
  const std::string k = CacheDifference("k", host.args().k, judged.args().k, p.options.rotary != Rotary::kNone);
  return told(k.empty() ? CacheDifference("v", host.args().v, judged.args().v, false) : k);
}

class Forward : public ::testing::TestWithParam<int> {};

TEST_P(Forward, CasesMeetTheAccuracyRuleAndEveryDetectorIsSilent) {
  const std::vector<ForwardCase> all = ForwardCases();
  std::set<std::string> kernels;
  std::int64_t cases = 0;
  for (std::size_t n = static_cast<std::size_t>(GetParam()); n < all.size(); n += kShards) {
    const ForwardCase& c = all[n];
    kernels.insert(std::string(Select(c.problem, DeviceCaps::Gpu(c.device)).kernel));
    const std::string wrong = EmulateForward(c);
    EXPECT_EQ(wrong, "") << kGpus[c.device] << ": " << Print(c.problem);
    ++cases;
  }
  std::int64_t launches = 0;
  for (const fake::KernelUse& use : fake::Uses()) launches += use.launches;
  std::printf("emulated %zu kernels x %lld cases, %zu instances, %lld launches\n", kernels.size(),
              static_cast<long long>(cases), fake::Uses().size(), static_cast<long long>(launches));
}

TEST(ForwardCases, ReachEveryRowOfTheTable) {
  std::set<std::string> reached;
  for (const ForwardCase& c : ForwardCases())
    reached.insert(Select(c.problem, DeviceCaps::Known(kGpus[c.device])).kernel);
  for (const KernelInfo& row : CudaKernels()) {
    if (!std::string_view(row.name).starts_with("cuda.generic.backward")) {
      EXPECT_TRUE(reached.contains(row.name)) << row.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Grid, Forward, ::testing::Range(0, kShards));

// What each kernel did, and where lanes met in the same bank of shared memory.
void PrintUses() {
  for (const fake::KernelUse& use : fake::Uses()) {
    const LaunchStats& s = use.stats;
    std::printf("%s: %lld launches, %lld blocks, %lld matrix products, %lld collectives\n", use.name.c_str(),
                static_cast<long long>(use.launches), static_cast<long long>(s.blocks),
                static_cast<long long>(s.products), static_cast<long long>(s.collectives));
    std::printf("  shared memory: %lld passes, %lld without conflicts\n", static_cast<long long>(s.AllBanks().passes),
                static_cast<long long>(s.AllBanks().ideal));
    for (const auto& [line, count] : s.banks) {
      if (count.conflicts() == 0) continue;
      std::printf("    %-22s %lld passes, %lld without conflicts\n", line.c_str(), static_cast<long long>(count.passes),
                  static_cast<long long>(count.ideal));
    }
  }
}

int RunAlone(const std::string& text) {
  const std::size_t colon = text.find(':');
  for (int device = 0; device < static_cast<int>(std::size(kGpus)) && colon != std::string::npos; ++device) {
    if (text.substr(0, colon) != kGpus[device]) continue;
    LaunchOptions options;
    options.count_banks = true;
    fake::SetLaunchOptions(options);
    const std::string wrong = EmulateForward({device, ParseProblem(text.substr(colon + 1))});
    PrintUses();
    std::printf("%s\n", wrong.empty() ? "meets the accuracy rule" : wrong.c_str());
    return wrong.empty() ? 0 : 1;
  }
  std::fprintf(stderr, "expected 'GPU: CASE' with one of %s\n", kGpuList);
  return 2;
}

}  // namespace
}  // namespace regard::emulator

// test_emulated_cuda "GPU: CASE" runs one case alone, as a failure prints it, and says what its kernels did. They must
// be among those compiled (forward_cases.cc).
int main(int argc, char** argv) {
  regard::emulator::UseFakeDriver();
  ::testing::InitGoogleTest(&argc, argv);
  if (argc == 2) return regard::emulator::RunAlone(argv[1]);
  return RUN_ALL_TESTS();
}
