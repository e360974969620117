// How launches are cut: every query and key in exactly one task, within the room that LimitsFor gives, in as many waves
// as that takes; and that launches of several waves have the bits of one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/cases/cases.h"
#include "src/cpu/schedule.h"

namespace regard {
namespace {

using namespace regard::cpu;

struct Lengths {
  std::int64_t seq_q, seq_kv;
};

// A launch that the scheduler alone sees.
struct Launched {
  Problem bounds;
  std::vector<Seq> seqs;
  ForwardParams p{};
  Tuning tuning = TuningFor("");
  int threads;
  ScheduleLimits limits;
  std::vector<Task> tasks;
  std::vector<Combine> combines;

  Launched(const std::string& text, const std::vector<Lengths>& lengths, int thread_count)
      : bounds(ParseProblem(text)), threads(thread_count) {
    for (const Lengths& n : lengths) seqs.push_back({0, n.seq_q, n.seq_q, n.seq_kv, n.seq_kv - n.seq_q, 0, 0});
    p.batch = static_cast<std::int64_t>(seqs.size());
    p.heads_q = bounds.heads_q;
    p.heads_kv = bounds.heads_kv;
    p.group = bounds.Group();
    p.head_dim = static_cast<int>(bounds.head_dim);
    p.head_dim_v = static_cast<int>(bounds.head_dim_v);
    p.block_tokens = kBlockTokens;
    p.split_tokens = kSplitTokens;
    p.seqs = seqs.data();
    p.options = &bounds.options;
    limits = LimitsFor(bounds, true, threads, tuning);
    tasks.resize(static_cast<std::size_t>(limits.tasks));
    combines.resize(static_cast<std::size_t>(limits.combines));
  }

  // Calls look(wave) for each; returns their number.
  template <class Look>
  int Waves(Look&& look) {
    Scheduler scheduler(p, true, threads, tuning, tasks, combines, limits.states);
    int waves = 0;
    for (; !scheduler.Done(); ++waves) look(scheduler.NextWave());
    return waves;
  }
};

// Every (sequence, head, row or split) once; states apart and inside the room; each task writes those of its own
// sequence.
int CheckWaves(Launched& l) {
  std::map<std::int32_t, std::int64_t> rows, splits;  // of a sequence, summed over kv heads
  const int waves = l.Waves([&](const Schedule& wave) {
    std::vector<bool> taken(static_cast<std::size_t>(l.limits.states), false);
    for (const Task& t : wave.tasks) {
      const std::int64_t heads = t.head_end - t.head_begin;
      ASSERT_GE(heads, 1);
      if (t.kind == Task::kPrefill) {
        rows[t.b] += (t.end - t.begin) * heads;
        ASSERT_LE(t.end - t.begin, kTaskRows);
        continue;
      }
      splits[t.b] += (t.end - t.begin) * heads;
      ASSERT_LE(heads * l.p.group * l.seqs[static_cast<std::size_t>(t.b)].seq_q, kDecodeRows);
      const auto combine =
          std::find_if(wave.combines.begin(), wave.combines.end(), [&](const Combine& c) { return c.b == t.b; });
      ASSERT_EQ(combine != wave.combines.end(), t.state >= 0);
      if (t.state < 0) continue;
      ASSERT_GE(t.state, combine->state);
      ASSERT_LT(t.state, combine->state + combine->splits * l.p.heads_q * l.seqs[static_cast<std::size_t>(t.b)].seq_q);
    }
    for (const Combine& combine : wave.combines) {
      const std::int64_t states = combine.splits * l.p.heads_q * l.seqs[static_cast<std::size_t>(combine.b)].seq_q;
      ASSERT_LE(combine.state + states, l.limits.states);
      for (std::int64_t n = combine.state; n < combine.state + states; ++n) {
        ASSERT_FALSE(taken[static_cast<std::size_t>(n)]);
        taken[static_cast<std::size_t>(n)] = true;
      }
    }
  });
  for (std::size_t b = 0; b < l.seqs.size(); ++b) {
    const Seq& s = l.seqs[b];
    const auto index = static_cast<std::int32_t>(b);
    const bool decodes = s.seq_q <= kMaxDecodeQueries && s.seq_q * l.p.group <= kDecodeRows;
    EXPECT_EQ(rows[index], decodes ? 0 : s.seq_q * l.p.heads_q) << b;
    EXPECT_EQ(splits[index], decodes && s.seq_q > 0 ? (s.seq_kv + kSplitTokens - 1) / kSplitTokens * l.p.heads_kv : 0)
        << b;
  }
  return waves;
}

TEST(Schedule, OneQueryOfEverySequenceIsOneWave) {
  Launched l("mixed b=64 sq=512 skv=8000 hq=32 hkv=8 d=128", std::vector<Lengths>(64, {1, 8000}), 2);
  EXPECT_EQ(CheckWaves(l), 1);
}

TEST(Schedule, MoreStatesThanTheRoomTakeMoreWaves) {
  Launched l("mixed b=64 sq=512 skv=40000 hq=32 hkv=8 d=128", std::vector<Lengths>(64, {15, 40000}), 2);
  EXPECT_GT(CheckWaves(l), 1);
}

TEST(Schedule, RaggedMixedAndEmptySequencesAreAllCovered) {
  std::vector<Lengths> lengths;
  for (std::int64_t b = 0; b < 200; ++b) lengths.push_back({b % 23 == 5 ? 300 + b : b % 17, 100 + b * 397 % 30000});
  for (int threads : {1, 2, 7, 64}) {
    for (const char* heads : {"hq=32 hkv=8", "hq=8 hkv=8", "hq=128 hkv=1", "hq=40 hkv=5", "hq=200 hkv=1"}) {
      Launched l(std::string("mixed b=200 sq=512 skv=30100 d=128 ") + heads, lengths, threads);
      SCOPED_TRACE(std::to_string(threads) + " " + heads);
      EXPECT_GE(CheckWaves(l), 1);
    }
  }
}

TEST(Schedule, PrefillsOfEveryLengthFitTheRoomForTheLongest) {
  for (std::int64_t longest : {16, 97, 577, 4096, 65536}) {
    for (int threads : {1, 2, 7, 64}) {
      for (const char* heads : {"hq=32 hkv=8", "hq=4 hkv=1", "hq=5 hkv=5"}) {
        const std::string length = std::to_string(longest);
        for (std::int64_t n = longest; n > 15; n = n * 2 / 3) {
          SCOPED_TRACE(length + " " + std::to_string(n) + " " + std::to_string(threads) + " " + heads);
          Launched l("prefill b=2 sq=" + length + " skv=" + length + " d=64 " + heads, {{n, longest}, {n / 2, longest}},
                     threads);
          ASSERT_LE(CheckWaves(l), 2);
        }
      }
    }
  }
}

TEST(Schedule, ManySmallPrefillsFitTheRoomForTasks) {
  Launched l("prefill b=3000 sq=96 skv=96 hq=32 hkv=8 d=64", std::vector<Lengths>(3000, {96, 96}), 1);
  EXPECT_LT(l.limits.tasks, 3000 * 8);
  EXPECT_GT(CheckWaves(l), 1);
}

TEST(Schedule, LongTasksOfBothKindsStartFirst) {
  std::vector<Lengths> lengths = {{1024, 1024}, {20, 40}};
  lengths.insert(lengths.end(), 30, {1, 4096});
  Launched l("mixed b=32 sq=1024 skv=4096 hq=32 hkv=8 d=128", lengths, 2);
  l.Waves([&](const Schedule& wave) {
    ASSERT_FALSE(wave.tasks.empty());
    EXPECT_EQ(wave.tasks.front().b, 0);  // kTaskRows rows over 1024 keys
    EXPECT_EQ(wave.tasks.back().b, 1);   // 80 rows over 40 keys
    for (std::size_t n = 1; n < wave.tasks.size(); ++n) EXPECT_GE(wave.tasks[n - 1].lead, wave.tasks[n].lead) << n;
  });
}

TEST(Schedule, TasksThatSharePanelsRunTogetherTheLongestFirst) {
  for (int threads : {2, 3, 8}) {
    Launched l("prefill b=2 sq=2048 skv=2048 hq=32 hkv=8 d=128 causal", {{2048, 2048}, {1500, 1500}}, threads);
    EXPECT_EQ(l.limits.slots, threads);
    l.Waves([&](const Schedule& wave) {
      for (std::size_t n = 1; n < wave.tasks.size(); ++n) {
        const Task &before = wave.tasks[n - 1], &t = wave.tasks[n];
        const std::int64_t turn = t.b * 8 + t.head_begin / threads;
        const std::int64_t turn_before = before.b * 8 + before.head_begin / threads;
        EXPECT_LE(turn_before, turn) << n;
        if (turn == turn_before) {
          EXPECT_GE(before.cost, t.cost) << n;
        }
      }
    });
  }
}

TEST(Schedule, AHeadOfOneTaskSharesNothing) {
  Launched l("prefill b=2 sq=2048 skv=2048 hq=32 hkv=8 d=128", {{2048, 2048}, {20, 40}}, 1);
  EXPECT_EQ(l.limits.slots, 1);
  EXPECT_EQ(Launched("prefill b=1 sq=20 skv=40 hq=4 hkv=1 d=64", {{20, 40}}, 2).limits.slots, 0);
  EXPECT_EQ(Launched("decode b=8 sq=1 skv=4000 hq=128 hkv=1 d=64", {}, 2).limits.slots, 0);
}

TEST(Schedule, WorkspaceDoesNotGrowWithTheBatchOfAMixedPlan) {
  const auto bytes = [](int batch) {
    return Plan(ParseProblem("mixed b=" + std::to_string(batch) +
                             " sq=2048 skv=32768 hq=32 hkv=8 d=128 dtype=bf16 varlen page=16"))
        .workspace_bytes();
  };
  // Sequence numbers and the like: a few hundred bytes a sequence.
  EXPECT_LT(bytes(4096) - bytes(64), 4032u * 512);
}

// A launch of many waves (the states of 15 queries by far exceed the room) against some of its sequences alone.
TEST(Schedule, WavesChangeNoBit) {
  const std::string shape = " hq=8 hkv=1 d=16 dtype=f32 causal lse varlen page=16";
  cases::Case c = cases::MakeCase(ParseProblem("mixed b=40 sq=20 skv=16500 qlens=15*19,20,15*20" + shape));
  for (int threads : {1, 3}) {
    std::unique_ptr<Executor> executor(MakeExecutor(ExecutorKind::kStdThread, threads));
    const Plan plan(c.problem(), DeviceCaps::Host(), executor.get());
    std::vector<std::byte> workspace(plan.workspace_bytes());
    cases::PoisonOutputs(c.args());
    Launch(plan, c.args(), {workspace.data(), workspace.size()});
    const AttentionArgs& whole = c.args();
    const auto* cu = static_cast<const std::int32_t*>(whole.cu_seqlens_q->data);
    const std::int64_t row_bytes = whole.out.stride[0] * 4;
    for (std::int64_t b : {0, 1, 18, 19, 20, 38, 39}) {
      AttentionArgs a = whole;
      const std::int64_t rows = cu[b + 1] - cu[b];
      const std::int32_t own[] = {0, static_cast<std::int32_t>(rows)};
      const auto slice = [&](const TensorView& t, std::int64_t begin, std::int64_t n) {
        TensorView v = t;
        v.data = static_cast<char*>(t.data) + begin * t.stride[0] * 4;
        v.shape[0] = n;
        return v;
      };
      std::vector<float> out(static_cast<std::size_t>(rows * 8 * 16), -1);
      a.q = slice(whole.q, cu[b], rows);
      a.out = TensorView::Contiguous(out.data(), DType::kF32, {rows, 8, 16});
      a.lse.reset();
      a.cu_seqlens_q = TensorView::Contiguous(const_cast<std::int32_t*>(own), DType::kI32, {2});
      a.block_table = slice(*whole.block_table, b, 1);
      for (auto* lengths : {&a.seqlens_kv, &a.seqused_kv, &a.seqused_q, &a.cache_seqlens}) {
        if (*lengths) *lengths = slice(**lengths, b, 1);
      }
      Attention(a, c.problem().options);
      EXPECT_EQ(std::memcmp(out.data(), static_cast<const char*>(whole.out.data) + cu[b] * row_bytes, out.size() * 4),
                0)
          << threads << " " << b;
    }
  }
}

}  // namespace
}  // namespace regard
