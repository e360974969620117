// Backward: FlashAttention-2, algorithm 2, on a CPU, one query head of one sequence at a time. Queries and keys are
// packed kGradQueries and kGradKeys at a time; inside, blocks of 128 keys run over blocks of 128 queries, so that the
// keys' three packed forms and their sums dk, dv stay in L2 while queries pass by.
//
// Order of the sums, which is all that bits depend on: dq of a row adds up its keys in order, dk and dv of a key its
// queries in order, each sum one chain in f32. Scores are the chains of the forward pass.
#pragma once

#include "src/cpu/tile/bias_gradient.h"
#include "src/cpu/tile/gradient_block.h"

namespace regard::cpu::REGARD_ISA {

template <class M>
static void StoreQueries(BackwardRun<M>& run) {
  const GradView& dq = run.p.dq;
  const int64_t batch = run.f.varlen ? 0 : run.b, first = (run.f.varlen ? run.s.q_row : 0) + run.first_query;
  char* to = dq.data + batch * dq.b + first * dq.s + run.head * dq.h;
  for (int r = 0; r < run.queries; ++r, to += dq.s) {
    if (!run.tiles[r / kGradRows].touched) {
      memset(run.dq + static_cast<int64_t>(r) * run.size.columns, 0, sizeof(float) * static_cast<size_t>(run.size.columns));
    }
    WithElem(dq.type, [&](auto t) {
      StoreOut<decltype(t)::value>(run.dq + static_cast<int64_t>(r) * run.size.columns, run.scaling.scale, 1.0f,
                                   run.f.head_dim, to);
    });
  }
}

static void AddRows(const float* x, int64_t n, float* sum) {
  for (int64_t i = 0; i < n; i += kLanes) Store(sum + i, Add(Load(sum + i), Load(x + i)));
}

// The head's sums over keys [begin, end) of the packed sequence of keys join those of the heads before it.
template <class M>
static void FoldKeys(BackwardRun<M>& run, bool first_head, int64_t begin, int64_t end, float* dk, float* dv) {
  for (int64_t k = begin; k < end; k += kPanelKeys) {
    const auto fold = [&](const float* from, int columns, float* sum) {
      float* const to = sum + k * columns;
      const int64_t n = static_cast<int64_t>(kPanelKeys) * columns;
      if (first_head) {
        if (!run.touched[k / kPanelKeys]) memset(to, 0, sizeof(float) * static_cast<size_t>(n));
      } else if (run.touched[k / kPanelKeys]) {
        AddRows(from + k * columns, n, to);
      }
    };
    fold(run.dk, run.size.columns, dk);
    fold(run.dv, run.size.columns_v, dv);
  }
}

// All of one query head. The last queries to meet a block of keys fold it, while it is in cache.
template <class M>
static void RunHead(BackwardRun<M>& run, bool first_head, int64_t* packed, float* dk, float* dv) {
  const int64_t all_keys = Max(run.s.seq_kv - run.s.leftpad, 0);
  const int64_t rows = (all_keys + kGradBlock - 1) / kGradBlock * kGradBlock;
  memset(run.touched, 0, static_cast<size_t>(rows / kPanelKeys));
  run.dsink = 0;
  int64_t folded_begin = 0, folded_end = 0;
  for (run.first_query = 0; run.first_query < run.s.seq_q; run.first_query += kGradQueries) {
    run.queries = static_cast<int>(Min(kGradQueries, run.s.seq_q - run.first_query));
    const bool last = run.first_query + run.queries == run.s.seq_q;
    PrepareQueries(run);
    run.clock.Lap(kTicksPack);
    const int64_t start = run.lo < run.hi ? run.lo / kGradKeys * kGradKeys : run.hi;
    if (last) folded_begin = folded_end = start;
    for (run.first_key = start; run.first_key < run.hi; run.first_key += kGradKeys) {
      run.keys = Min(kGradKeys, all_keys - run.first_key);
      if (*packed != run.first_key) PackKeyBlocks(run);
      *packed = run.first_key;
      run.clock.Lap(kTicksPack);
      for (int key = 0; key < run.keys; key += kGradBlock) {
        for (int query = 0; query < run.queries; query += kGradBlock) RunGradBlock(run, query, key);
        if (!last) continue;
        folded_end = run.first_key + key + kGradBlock;
        FoldKeys(run, first_head, folded_end - kGradBlock, folded_end, dk, dv);
        run.clock.Lap(kTicksMerge);
      }
    }
    StoreQueries(run);
    run.clock.Lap(kTicksMerge);
  }
  FoldKeys(run, first_head, 0, folded_begin, dk, dv);
  FoldKeys(run, first_head, folded_end, rows, dk, dv);
  if (run.p.dsink) run.p.dsink[run.b * run.f.heads_q + run.head] = run.dsink;
}

template <class M>
static void RunBackward(const BackwardParams& p, const GradTask& task, float* dk, float* dv, float* scratch) {
  BackwardRun<M> run(p, task);
  TakeScratch(run, scratch);
  float *const head_dk = run.dk, *const head_dv = run.dv;
  int64_t packed = -1;  // first key of what is packed
  for (int64_t g = task.begin; g < task.end; ++g) {
    const bool first = g == task.begin;
    run.head = task.head_kv * run.f.group + g;
    run.dk = first ? dk : head_dk;
    run.dv = first ? dv : head_dv;
    RunHead(run, first, &packed, dk, dv);
  }
}

template <class M>
static int64_t BackwardScratchFloats(const BackwardParams& p, bool bias) {
  const int64_t main = BackwardScratch<M>(p).total;
  return RoundUp(bias ? Max(main, kBiasTileFloats + BackwardScratch<MathF32>(p).total) : main, 16);
}

static void StoreGradRow(const float* x, float factor, int dim, Elem type, char* to) {
  WithElem(type, [&](auto t) { StoreOut<decltype(t)::value>(x, factor, 1.0f, dim, to); });
}

template <class M>
constexpr BackwardKernels MakeBackward() {
  return {BackwardScratchFloats<M>, GradColumns, RunBackward<M>, RunBias, AddRows, StoreGradRow};
}

}  // namespace regard::cpu::REGARD_ISA
