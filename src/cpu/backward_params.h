// What the ISA objects see of a backward launch (params.h says what such a header may hold). Built once per launch by
// src/cpu/backward.cc; everything is borrowed from the caller's tensors or from the launch workspace.
#pragma once

#include "src/cpu/params.h"

namespace regard::cpu {

// Queries and keys that are packed at a time. No bit depends on them: sums advance in the order of queries and of keys.
// AVX-512, D = 128, f32: q and dO twice each, k twice and v once, 7 x 256 KiB a worker.
inline constexpr int kGradQueries = 512;
inline constexpr int kGradKeys = 2048;

struct GradView {  // strides in bytes; packed: b unused (queries) or the row (keys)
  char* data;
  int64_t b, s, h;
  Elem type;
};

struct BackwardParams {
  ForwardParams f;               // out and lse are those of the forward pass, and read only
  const char* dout;              // as out
  Elem dout_type;
  int64_t dout_stride_b, dout_stride_s, dout_stride_h;
  const float* dlse;             // or null; strides in elements, as lse
  int64_t dlse_stride_b, dlse_stride_h, dlse_stride_s;
  GradView dq, dk, dv;
  double* dsink;                 // (B, Hq), of each sequence and head; or null
  int64_t max_keys;              // of a sequence
};

// Query heads [begin, end) of the group of kv head `head_kv` of sequence b.
struct GradTask {
  int64_t b, head_kv, begin, end;
};

// A tile of dbias, queries [i_begin, i_end) and keys j [j_begin, j_end) (everything, where that extent of the bias is 1),
// and the sequences and heads whose dS it sums.
struct BiasTask {
  int64_t b_begin, b_end, h_begin, h_end, i_begin, i_end, j_begin, j_end;
  bool one_row, one_column;      // the extents of queries and of keys are 1
  char* to;                      // its first element
  int64_t row_bytes, column_bytes;
  Elem type;
};
inline constexpr int kBiasTileQueries = 512, kBiasTileKeys = 128;
inline constexpr int64_t kBiasTileFloats = kBiasTileQueries * kBiasTileKeys;

// Sums of gradients lie in f32 buffers [key j'][columns], `columns` floats a row (a head dim padded to whole panels),
// max_keys rounded up to 128 rows. No row beyond a sequence's keys is written.
struct BackwardKernels {
  int64_t (*scratch_floats)(const BackwardParams&, bool bias);  // per worker, 64-byte aligned
  int64_t (*columns)(int head_dim);
  // dq of the task's heads, and the sums of their dk and dv, head after head.
  void (*run)(const BackwardParams&, const GradTask&, float* dk, float* dv, float* scratch);
  void (*bias)(const BackwardParams&, const BiasTask&, float* scratch);
  void (*add)(const float* x, int64_t n, float* sum);  // sum[i] += x[i]; n a multiple of `columns`
  // One row of `dim` floats, times factor, as elements of `type`.
  void (*store)(const float* x, float factor, int dim, Elem type, char* to);
};

extern const BackwardKernels kScalarF32Backward;
#if defined(__x86_64__)
extern const BackwardKernels kAvx2F32Backward, kAvx512F32Backward, kAvx512Bf16PairsBackward;
#elif defined(__aarch64__)
extern const BackwardKernels kNeonF32Backward;
#endif

}  // namespace regard::cpu
