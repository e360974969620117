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
#include "tests/emulator/emulated_cases.h"
#include "tests/emulator/fake/control.h"
#include "tests/emulator/run_on_device.h"

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

struct CaseRun {
  std::vector<std::string> kernels;  // the rows that ran
  std::vector<std::string> wrong;    // one line for each that went wrong
};

// Runs one case by every row that can do it.
CaseRun Emulate(const EmulatedCase& c) {
  const Problem& p = c.problem;
  const cases::Case inputs = cases::MakeCase(p);
  cases::Case judged;
  if (p.append) {
    judged = inputs.Clone();
    Append(p, judged.args());
  }
  const cases::CallOracle oracle(p, p.append ? judged.call() : inputs.call());
  CaseRun run;
  for (const KernelInfo* row : RowsFor(p, DeviceCaps::Gpu(c.device))) {
    run.kernels.emplace_back(row->name);
    cases::Case mine = inputs.Clone();
    cases::PoisonOutputs(p, mine.call());
    std::string wrong = RunOnDevice(p, mine.call(), c.device, row->name).Wrong();
    if (wrong.empty()) {
      const cases::Accuracy accuracy = oracle.Compare(mine.call());
      if (!accuracy.ok()) wrong = accuracy.where;
    }
    if (wrong.empty() && p.append) {
      wrong = CacheDifference("k", mine.args().k, judged.args().k, p.options.rotary != Rotary::kNone);
      if (wrong.empty()) wrong = CacheDifference("v", mine.args().v, judged.args().v, false);
    }
    if (!wrong.empty()) run.wrong.push_back(std::string(row->name) + ": " + wrong);
  }
  return run;
}

class Emulated : public ::testing::TestWithParam<int> {};

TEST_P(Emulated, CasesMeetTheAccuracyRuleAndEveryDetectorIsSilent) {
  const std::vector<EmulatedCase> all = EmulatedCases();
  std::set<std::string> kernels;
  std::int64_t cases = 0, runs = 0;
  for (std::size_t n = static_cast<std::size_t>(GetParam()); n < all.size(); n += kShards) {
    const CaseRun run = Emulate(all[n]);
    EXPECT_FALSE(run.kernels.empty()) << Print(all[n].problem);
    for (const std::string& wrong : run.wrong) {
      ADD_FAILURE() << kGpus[all[n].device] << ": " << Print(all[n].problem) << "\n" << wrong;
    }
    kernels.insert(run.kernels.begin(), run.kernels.end());
    runs += static_cast<std::int64_t>(run.kernels.size());
    ++cases;
  }
  std::printf("emulated %zu kernels x %lld cases: %lld runs of %zu instances\n", kernels.size(),
              static_cast<long long>(cases), static_cast<long long>(runs), fake::Uses().size());
}

TEST(EmulatedCases, ReachEveryRowOfTheTable) {
  std::set<std::string_view> reached;
  for (const EmulatedCase& c : EmulatedCases()) {
    for (const KernelInfo* row : RowsFor(c.problem, DeviceCaps::Known(kGpus[c.device]))) reached.insert(row->name);
  }
  for (const KernelInfo& row : CudaKernels()) EXPECT_TRUE(reached.contains(row.name)) << row.name;
}

INSTANTIATE_TEST_SUITE_P(Grid, Emulated, ::testing::Range(0, kShards));

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
    const CaseRun run = Emulate({device, ParseProblem(text.substr(colon + 1))});
    PrintUses();
    for (const std::string& wrong : run.wrong) std::printf("%s\n", wrong.c_str());
    std::printf("%zu kernels, %zu wrong\n", run.kernels.size(), run.wrong.size());
    return run.wrong.empty() ? 0 : 1;
  }
  std::fprintf(stderr, "expected 'GPU: CASE' with one of %s\n", kGpuList);
  return 2;
}

}  // namespace
}  // namespace regard::emulator

// test_emulated_cuda "GPU: CASE" runs one case alone, as a failure prints it, and says what its kernels did. They must
// be among those compiled (emulated_cases.cc).
int main(int argc, char** argv) {
  regard::emulator::UseFakeDriver();
  ::testing::InitGoogleTest(&argc, argv);
  if (argc == 2) return regard::emulator::RunAlone(argv[1]);
  return RUN_ALL_TESTS();
}
