// The gradient of the bias: dS, summed over the extents of the bias that are 1. A pass of its own over S and dP in f32,
// so that each element is the sum of one task, in the order of sequences, heads, queries and keys; nothing of the size
// of the scores is kept.
#pragma once

#include "src/cpu/tile/gradient_block.h"

namespace regard::cpu::REGARD_ISA {

// Adds dS of one head of one sequence to the task's tile, sum[i - task.i_begin][j - task.j_begin] (row or column 0 where
// that extent of the bias is 1).
static void AddBiasGradient(BackwardRun<MathF32>& run, const BiasTask& task, bool one_row, bool one_column,
                            float* sum) {
  const int64_t all_keys = Max(run.s.seq_kv - run.s.leftpad, 0);
  const int64_t key_begin = Max(task.j_begin - run.s.leftpad, 0), key_end = Min(task.j_end - run.s.leftpad, all_keys);
  const int64_t columns = task.j_end - task.j_begin;
  const int64_t end = Min(task.i_end, run.s.seq_q);
  for (run.first_query = task.i_begin; run.first_query < end; run.first_query += kGradQueries) {
    run.queries = static_cast<int>(Min(kGradQueries, end - run.first_query));
    PrepareQueries(run);
    for (run.first_key = key_begin / kPanelKeys * kPanelKeys; run.first_key < key_end; run.first_key += kGradKeys) {
      run.keys = Min(kGradKeys, key_end - run.first_key);
      PackKeyBlocks(run);
      for (int query = 0; query < run.queries; query += kGradBlock) {
        for (int key = 0; key < run.keys; key += kGradBlock) {
          BlockShape shape;
          if (!ShapeOf(run, query, key, shape)) continue;
          ScoreBlock(run, query, key, shape);
          ProbabilityBlock(run, query, key, shape);
          for (int r = 0; r < Min(kGradBlock, run.queries - query); ++r) {
            const int t = r / kGradRows;
            const int64_t first = run.first_key + key;
            const int begin = static_cast<int>(Max(shape.begin[t], key_begin - first));
            const int last = static_cast<int>(Min(shape.end[t], key_end - first));
            const float* from = run.block.row_ds + static_cast<int64_t>(r) * kGradStride;
            float* to = sum + (one_row ? 0 : run.first_query + query + r - task.i_begin) * (one_column ? 1 : columns);
            for (int k = begin; k < last; ++k) {
              to[one_column ? 0 : first + k + run.s.leftpad - task.j_begin] += from[k];
            }
          }
        }
      }
    }
  }
}

// One tile of dbias, all sequences and heads that share it.
static void RunBias(const BackwardParams& p, const BiasTask& task, float* scratch) {
  const int64_t rows = task.one_row ? 1 : task.i_end - task.i_begin;
  const int64_t columns = task.one_column ? 1 : task.j_end - task.j_begin;
  float* const sum = scratch;
  memset(sum, 0, sizeof(float) * static_cast<size_t>(rows * columns));
  for (int64_t b = task.b_begin; b < task.b_end; ++b) {
    for (int64_t h = task.h_begin; h < task.h_end; ++h) {
      BackwardRun<MathF32> run(p, GradTask{b, h / p.f.group, 0, 0});
      TakeScratch(run, scratch + kBiasTileFloats);
      run.block.slope = nullptr;  // the softcap lies before the bias
      run.head = h;
      run.dsink = 0;
      AddBiasGradient(run, task, task.one_row, task.one_column, sum);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      StoreElem(task.to + r * task.row_bytes + c * task.column_bytes, task.type, sum[r * columns + c]);
    }
  }
}

}  // namespace regard::cpu::REGARD_ISA
