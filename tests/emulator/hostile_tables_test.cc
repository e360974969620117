// Tables and lengths on a device, which no host call has checked: whatever they hold, kernels read and write nothing
// beside the tensors (each is an allocation of its own here), the sequences that are right get their right rows, and
// the next host call says what was wrong.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "src/cases/cases.h"
#include "tests/emulator/emulated_cases.h"
#include "tests/emulator/run_on_device.h"

namespace regard::emulator {
namespace {

constexpr std::int32_t kLowest = std::numeric_limits<std::int32_t>::min();
constexpr std::int32_t kHighest = std::numeric_limits<std::int32_t>::max();

struct Hostile {
  const char* problem;  // see HostileProblems
  std::optional<TensorView> AttentionArgs::*table;
  std::int64_t entry;                // of row 1 in a table of rows; none of sequence 0
  const char* words;                 // of the error
  std::vector<std::int32_t> values;  // each alone in that entry
};

std::vector<std::byte> Bytes(const TensorView& view) {
  const auto* data = static_cast<const std::byte*>(view.data);
  return {data, data + static_cast<std::size_t>(view.Elements()) * SizeOf(view.dtype)};
}

// Sequence 0 of three is left alone: its rows come first in memory.
std::vector<std::byte> FirstSequence(const AttentionArgs& args, std::int64_t queries) {
  const auto bytes =
      static_cast<std::size_t>(queries * args.out.stride[args.cu_seqlens_q ? 0 : 1]) * SizeOf(args.out.dtype);
  std::vector<std::byte> all = Bytes(args.out);
  all.resize(bytes);
  return all;
}

void Try(const Hostile& hostile, int device) {
  const Problem p = ParseProblem(hostile.problem);
  cases::Case clean = cases::MakeCase(p);
  ASSERT_EQ(RunOnDevice(p, clean.call(), device).Wrong(), "") << hostile.problem;
  for (const std::int32_t value : hostile.values) {
    SCOPED_TRACE(std::string(kGpus[device]) + ": " + hostile.problem + ": " + hostile.words + ": " +
                 std::to_string(value));
    cases::Case bad = cases::MakeCase(p);
    ASSERT_TRUE(bad.args().*hostile.table);
    const TensorView& table = *(bad.args().*hostile.table);
    auto& entry = *static_cast<std::int32_t*>(table.rank == 2 ? table.At(1, hostile.entry) : table.At(hostile.entry));
    ASSERT_NE(entry, value);
    entry = value;
    const Outcome outcome = RunOnDevice(p, bad.call(), device);
    EXPECT_TRUE(outcome.reports.empty()) << outcome.Wrong();
    EXPECT_NE(outcome.error.find("cuda.tables"), std::string::npos) << "error: " << outcome.error;
    EXPECT_NE(outcome.error.find(hostile.words), std::string::npos) << "error: " << outcome.error;
    EXPECT_TRUE(FirstSequence(bad.args(), p.seq_q) == FirstSequence(clean.args(), p.seq_q)) << "sequence 0 has changed";
    // The error was told once; a call that follows is right again.
    cases::Case again = cases::MakeCase(p);
    EXPECT_EQ(RunOnDevice(p, again.call(), device).Wrong(), "");
    EXPECT_TRUE(Bytes(again.args().out) == Bytes(clean.args().out)) << "a later call has changed";
  }
}

class HostileTables : public ::testing::TestWithParam<int> {};

TEST_P(HostileTables, AreSkippedAndReported) {
  const std::vector<const char*> problems = HostileProblems();
  enum { kPaged, kCsr, kPacked, kCache };
  const Hostile all[] = {
      {problems[kPaged], &AttentionArgs::block_table, 2, "block_table or kv_indices", {-1, kLowest, kHighest, 1 << 20}},
      {problems[kPaged], &AttentionArgs::seqlens_kv, 1, "seqlens_kv", {-1, kLowest, kHighest, 161}},
      {problems[kPaged], &AttentionArgs::leftpad, 2, "leftpad", {-1, kLowest, kHighest, 200}},
      {problems[kCsr], &AttentionArgs::kv_indices, 8, "block_table or kv_indices", {-1, kLowest, kHighest}},
      {problems[kCsr], &AttentionArgs::kv_indptr, 2, "kv_indptr", {-1, kLowest, kHighest, 1}},
      {problems[kCsr], &AttentionArgs::kv_last_page_len, 1, "kv_last_page_len", {0, -3, 17, kHighest, kLowest}},
      {problems[kPacked], &AttentionArgs::cu_seqlens_q, 2, "cu_seqlens_q", {-1, kLowest, kHighest, 3}},
      {problems[kPacked], &AttentionArgs::cu_seqlens_kv, 2, "cu_seqlens_kv", {-1, kLowest, kHighest, 3}},
      {problems[kCache], &AttentionArgs::cache_seqlens, 2, "", {-1, kLowest, kHighest, 150}},
      {problems[kCache], &AttentionArgs::cache_batch_idx, 1, "cache_batch_idx", {-1, kLowest, kHighest, 100}},
  };
  for (const Hostile& hostile : all) Try(hostile, GetParam());
}

INSTANTIATE_TEST_SUITE_P(OfGpu, HostileTables, ::testing::Range(0, static_cast<int>(std::size(kGpus))));

}  // namespace
}  // namespace regard::emulator
