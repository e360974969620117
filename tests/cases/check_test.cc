// The check fails on planted wrong kernels, each a real one with one mistake.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "src/backend/kernel_info.h"
#include "src/cases/check.h"
#include "src/cases/grid.h"

namespace regard::cases {
namespace {

const KernelInfo& Reference() { return ReferenceKernels()[0]; }

// The reference under another name, with another launch.
KernelInfo Planted(const char* name, void (*launch)(const LaunchContext&), const char* numerics = "planted") {
  KernelInfo kernel = Reference();
  kernel.name = name;
  kernel.numerics = numerics;
  kernel.launch = launch;
  return kernel;
}

void Sound(const LaunchContext& c) { Reference().launch(c); }

// Sees one key beyond the diagonal.
void MaskOffByOne(const LaunchContext& c) {
  Problem p = c.problem;
  p.options.causal = false;
  p.options.window_right = 1;
  Reference().launch({p, c.args, c.sequences, c.plan, c.executor, c.workspace});
}

// Never sees the last key of a sequence.
void DroppedKey(const LaunchContext& c) {
  std::vector<Sequence> sequences(c.sequences.begin(), c.sequences.end());
  for (Sequence& s : sequences) s.seq_kv = std::max<std::int64_t>(0, s.seq_kv - 1);
  Reference().launch({c.problem, c.args, sequences, c.plan, c.executor, c.workspace});
}

// Attends, and leaves the new keys out of the cache.
void NoAppend(const LaunchContext& c) {
  const auto bytes = static_cast<std::size_t>(c.args.k.Elements()) * SizeOf(c.args.k.dtype);
  std::vector<std::byte> before(bytes);
  std::memcpy(before.data(), c.args.k.data, bytes);
  Reference().launch(c);
  std::memcpy(c.args.k.data, before.data(), bytes);
}

void LeavesOutUnwritten(const LaunchContext&) {}

void Throws(const LaunchContext&) { throw Error("kernel", "planted", "a kernel that works"); }

// Right by the rule, but not the bits of its siblings.
void OneBitOff(const LaunchContext& c) {
  Reference().launch(c);
  auto* first = static_cast<std::uint32_t*>(c.args.out.data);
  *first ^= 1;
}

CheckReport Check(const std::vector<std::string>& texts, const std::vector<KernelInfo>& kernels, CheckOptions options = {}) {
  std::vector<Problem> problems;
  for (const std::string& text : texts) problems.push_back(ParseProblem(text));
  std::vector<const KernelInfo*> rows;
  for (const KernelInfo& kernel : kernels) rows.push_back(&kernel);
  return RunCheck(problems, rows, options);
}

const std::vector<std::string> kCausal = {"prefill sq=20 skv=40 hq=2 hkv=1 d=16 dtype=f32 causal lse"};
const std::vector<std::string> kAppend = {"decode lens=9,20 sq=2 hq=2 hkv=1 d=16 dtype=bf16 append=2 page=4 causal"};

TEST(RunCheck, ASoundKernelPasses) {
  const CheckReport report = Check({kCausal[0], kAppend[0]}, {Planted("sound", Sound)});
  EXPECT_TRUE(report.ok()) << report.misses.front().what;
  EXPECT_EQ(report.cases, 2);
  ASSERT_EQ(report.kernels.size(), 1u);
  EXPECT_EQ(report.kernels[0].kernel, "sound");
  EXPECT_EQ(report.kernels[0].cases, 2);
  EXPECT_LT(report.kernels[0].worst_ratio, 1);
}

TEST(RunCheck, AMaskOffByOneFailsAndPrintsItsCase) {
  const CheckReport report = Check(kCausal, {Planted("wrong", MaskOffByOne)});
  ASSERT_EQ(report.misses.size(), 1u);
  EXPECT_FALSE(report.ok());
  EXPECT_EQ(report.misses[0].kernel, "wrong");
  EXPECT_EQ(ParseProblem(report.misses[0].problem), ParseProblem(kCausal[0]));
  EXPECT_NE(report.misses[0].what.find("expected"), std::string::npos) << report.misses[0].what;
  EXPECT_GT(report.kernels[0].worst_ratio, 1);
}

TEST(RunCheck, ADroppedKeyFails) {
  EXPECT_FALSE(Check({"decode sq=1 skv=300 hq=4 hkv=2 d=32 dtype=bf16"}, {Planted("wrong", DroppedKey)}).ok());
  EXPECT_FALSE(Check({"decode sq=1 skv=64 hq=4 hkv=2 d=32 dtype=f16 page=16"}, {Planted("wrong", DroppedKey)}).ok());
}

TEST(RunCheck, AFewCasesOfTheQuickGridCatchPlantedKernels) {
  std::vector<Problem> grid;
  for (const Problem& p : Grid(GridSize::kQuick)) {
    if (p.seq_kv <= 160 && p.seed % 5 == 0) grid.push_back(p);
  }
  for (const auto launch : {MaskOffByOne, DroppedKey, NoAppend}) {
    const KernelInfo kernel = Planted("wrong", launch);
    const KernelInfo* const row = &kernel;
    EXPECT_FALSE(RunCheck(grid, {&row, 1}).ok());
  }
}

TEST(RunCheck, AForgottenAppendFails) {
  const CheckReport report = Check(kAppend, {Planted("wrong", NoAppend)});
  ASSERT_EQ(report.misses.size(), 1u);
  EXPECT_EQ(report.misses[0].what.rfind("appended k", 0), 0u) << report.misses[0].what;
}

TEST(RunCheck, AnOutputThatIsNotWrittenFailsForEachKernel) {
  // The first kernel's results must not stand in for the second's.
  const CheckReport report = Check(kCausal, {Planted("sound", Sound), Planted("lazy", LeavesOutUnwritten)});
  ASSERT_EQ(report.misses.size(), 1u);
  EXPECT_EQ(report.misses[0].kernel, "lazy");
}

TEST(RunCheck, AKernelThatThrowsHasMissed) {
  const CheckReport report = Check(kCausal, {Planted("throws", Throws)});
  ASSERT_EQ(report.misses.size(), 1u);
  EXPECT_NE(report.misses[0].what.find("planted"), std::string::npos);
}

TEST(RunCheck, CrossHoldsEqualNumericsToEqualBits) {
  CheckOptions cross;
  cross.cross = true;
  const CheckReport equal = Check(kCausal, {Planted("a", Sound, "n"), Planted("b", Sound, "n")}, cross);
  EXPECT_TRUE(equal.ok());
  EXPECT_EQ(equal.compared, 1);
  const CheckReport differ = Check(kCausal, {Planted("a", Sound, "n"), Planted("b", OneBitOff, "n")}, cross);
  ASSERT_EQ(differ.misses.size(), 1u);
  EXPECT_TRUE(differ.misses[0].cross);
  EXPECT_TRUE(Check(kCausal, {Planted("a", Sound, "n"), Planted("b", OneBitOff, "m")}, cross).ok());
  EXPECT_TRUE(Check(kCausal, {Planted("a", Sound, "n"), Planted("b", OneBitOff, "n")}).ok());
}

TEST(RunCheck, TheReferenceRunsOnlyWhereItIsAloneOrAskedFor) {
  const std::vector<KernelInfo> both = {Planted("sound", Sound), Reference()};
  EXPECT_EQ(Check(kCausal, both).runs, 1);
  EXPECT_EQ(Check(kCausal, {Reference()}).runs, 1);
  CheckOptions options;
  options.reference_too = true;
  EXPECT_EQ(Check(kCausal, both, options).runs, 2);
}

TEST(RunCheck, CountsCasesThatNoKernelCanDo) {
  KernelInfo picky = Planted("picky", Sound);
  picky.supports = [](const KernelInfo&, const Problem& p, const DeviceCaps&) {
    return p.head_dim > 16 ? Reject("head_dim", p.head_dim, "<= 16") : Accept();
  };
  const CheckReport report = Check({kCausal[0], "decode sq=1 skv=9 hq=1 hkv=1 d=32 dtype=f32"}, {picky});
  EXPECT_EQ(report.cases, 2);
  EXPECT_EQ(report.unable, 1);
  EXPECT_EQ(report.runs, 1);
}

TEST(RunCheck, StopsWhenInterruptedAndSaysSo) {
  CheckOptions options;
  int asked = 0;
  options.interrupted = [&] { return ++asked > 3; };
  const CheckReport report = Check({kCausal[0], kCausal[0], kCausal[0], kCausal[0]}, {Planted("sound", Sound)}, options);
  EXPECT_TRUE(report.interrupted);
  EXPECT_FALSE(report.ok());
  EXPECT_LT(report.cases, 4);
}

TEST(RunCheck, ReportsProgressAfterEachCase) {
  CheckOptions options;
  std::vector<std::size_t> seen;
  options.progress = [&](std::size_t done, std::size_t total, std::size_t) {
    EXPECT_EQ(total, 2u);
    seen.push_back(done);
  };
  Check({kCausal[0], kCausal[0]}, {Planted("sound", Sound)}, options);
  EXPECT_EQ(seen, (std::vector<std::size_t>{1, 2}));
}

TEST(RunCheck, AnIllegalProblemIsAnErrorNotAMiss) {
  Problem p = ParseProblem(kCausal[0]);
  p.heads_q = 3;
  p.heads_kv = 2;
  const KernelInfo kernel = Planted("sound", Sound);
  const KernelInfo* const row = &kernel;
  EXPECT_THROW(RunCheck({&p, 1}, {&row, 1}), Error);
}

}  // namespace
}  // namespace regard::cases
