/* The C API of regard: the same calls as the C++ API, for C11 and for bindings.
 *
 * Status.   Every function that can fail returns a regard_status; no exception crosses. After a failure
 *           regard_last_error() and its parts say what was wrong, in which field. Nothing has been written then.
 * Structs.  regard_options, regard_args and regard_backward_args begin with struct_size = sizeof(the struct). Zero the
 *           rest (REGARD_OPTIONS_INIT, REGARD_ARGS_INIT, REGARD_BACKWARD_ARGS_INIT): zero and NULL mean absent, or the
 *           default. A program that was compiled with an older header keeps working, since fields beyond its struct_size
 *           take their defaults.
 * Memory.   The caller owns every tensor, struct and string that it passes; none is kept after the call, except that a
 *           plan's launches read what they are given. Handles belong to the caller: one _destroy call each.
 * Threads.  Handles are immutable and may be shared by threads; a workspace serves one launch at a time.
 * Text out. f(..., buffer, buffer_bytes, needed): writes a null-terminated string; *needed (may be NULL) gets its size
 *           with the null. With buffer NULL only *needed is set. REGARD_BUFFER_TOO_SMALL writes nothing into buffer.
 * Meaning of every field: docs/semantics.md; shapes: regard/attention.h. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "regard/export.h"
#include "regard/version.h" /* regard_version() */

#ifdef __cplusplus
extern "C" {
#endif

typedef enum regard_status {
  REGARD_OK = 0,
  REGARD_INVALID_ARGUMENT = 1, /* the last error names field, value and expectation */
  REGARD_OUT_OF_MEMORY = 2,
  REGARD_BUFFER_TOO_SMALL = 3,
  REGARD_INTERNAL = 4
} regard_status;

typedef enum regard_dtype {
  REGARD_F32 = 0,
  REGARD_F16 = 1,
  REGARD_BF16 = 2,
  REGARD_F8E4M3 = 3,
  REGARD_F8E5M2 = 4,
  REGARD_I32 = 5,
  REGARD_U8 = 6,
  REGARD_BOOL = 7
} regard_dtype;

typedef enum regard_device { REGARD_CPU = 0, REGARD_CUDA = 1, REGARD_OPENCL = 2 } regard_device;
typedef enum regard_rotary {
  REGARD_ROTARY_NONE = 0,
  REGARD_ROTARY_INTERLEAVED = 1,
  REGARD_ROTARY_HALF = 2
} regard_rotary;
typedef enum regard_invariance {
  REGARD_INVARIANCE_FULL = 0,
  REGARD_INVARIANCE_BATCH = 1,
  REGARD_INVARIANCE_NONE = 2
} regard_invariance;
typedef enum regard_format { REGARD_TEXT = 0, REGARD_JSON = 1 } regard_format;

/* ---- Errors: of the last call of this thread that failed; "" before any. Valid until the next failure. ---- */
REGARD_API const char* regard_last_error(void);          /* "hq: 7 is not a multiple of hkv 2; expected hq = n * hkv" */
REGARD_API const char* regard_last_error_field(void);    /* "hq"; "" where no field is at fault */
REGARD_API const char* regard_last_error_value(void);    /* "7 is not a multiple of hkv 2" */
REGARD_API const char* regard_last_error_expected(void); /* "hq = n * hkv" */

/* ---- Tensors: a strided view of the caller's memory; shape and stride in elements. This struct never changes. ---- */
#define REGARD_MAX_RANK 5
typedef struct regard_tensor {
  void* data;           /* address of element (0, ..., 0) */
  int32_t dtype;        /* regard_dtype */
  int32_t device;       /* regard_device */
  int32_t device_index;
  int32_t rank;         /* 0..REGARD_MAX_RANK */
  int64_t shape[REGARD_MAX_RANK];
  int64_t stride[REGARD_MAX_RANK];
} regard_tensor;

/* Fills *tensor as a row-major view on the CPU of shape[0..rank). */
REGARD_API regard_status regard_tensor_contiguous(void* data, regard_dtype dtype, int32_t rank, const int64_t* shape,
                                                  regard_tensor* tensor);

/* ---- Options and arguments of a call ---- */
typedef struct regard_options {
  size_t struct_size;
  const double* scale;         /* NULL: 1/sqrt(D), with qv 1/sqrt(D + Dv) */
  const int64_t* window_left;  /* NULL: open */
  const int64_t* window_right; /* NULL: open */
  const int64_t* chunk;        /* attention_chunk; NULL: none */
  double softcap;              /* 0: off */
  double dropout;              /* 0: off */
  int32_t causal;              /* 0 or 1 */
  int32_t rotary;              /* regard_rotary */
  int32_t invariance;          /* regard_invariance */
  int32_t reserved;            /* 0 */
  const char* kernels;         /* only these, in this order: names or prefixes, comma-separated; NULL: no demand */
  const char* exclude;         /* never these; NULL: none */
} regard_options;
#define REGARD_OPTIONS_INIT {.struct_size = sizeof(regard_options)}

/* Pure, thread-safe functions of one score: its new value, and whether key j is visible. */
typedef float (*regard_score_mod)(const void* ctx, float s, int64_t b, int64_t h, int64_t i, int64_t j);
typedef bool (*regard_mask_mod)(const void* ctx, int64_t b, int64_t h, int64_t i, int64_t j);

/* Tensors as in regard/attention.h (AttentionArgs), which gives their shapes. q, k, v and out are required. */
typedef struct regard_args {
  size_t struct_size;
  const regard_tensor *q, *k, *v;
  const regard_tensor* out;
  const regard_tensor* lse; /* given: the LSE is computed */
  const regard_tensor* qv;
  const regard_tensor *cu_seqlens_q, *cu_seqlens_kv;
  const regard_tensor *seqused_q, *seqused_kv;
  const regard_tensor* seqlens_kv;
  const regard_tensor* block_table;
  const regard_tensor *kv_indptr, *kv_indices, *kv_last_page_len;
  const regard_tensor* q_offset;
  const regard_tensor* leftpad;
  const regard_tensor *k_new, *v_new;
  const regard_tensor* cu_seqlens_new;
  const regard_tensor* cache_seqlens;
  const regard_tensor* cache_batch_idx;
  const regard_tensor *rotary_cos, *rotary_sin;
  const regard_tensor* rotary_seqlens;
  const regard_tensor* alibi_slopes;
  const regard_tensor* bias;
  const regard_tensor* mask;
  const regard_tensor* sink;
  const regard_tensor *q_descale, *k_descale, *v_descale;
  regard_score_mod score_mod;
  const void* score_mod_ctx;
  regard_mask_mod mask_mod;
  const void* mask_mod_ctx;
  uint64_t dropout_seed, dropout_offset;
  /* Only of tensors on a GPU. */
  void* stream;                  /* CUstream (cudaStream_t) that the work is put on; NULL: the default stream */
  const int64_t* max_seqlen_q;   /* bounds of lengths that lie on the GPU; NULL: what the shapes allow */
  const int64_t* max_seqlen_kv;
} regard_args;
#define REGARD_ARGS_INIT {.struct_size = sizeof(regard_args)}

/* Gradients of a call, as in regard/attention.h (BackwardArgs). forward, dout, dq, dk and dv are required, and so is
 * forward's lse; forward's out and lse are those that the forward pass wrote, and are only read. */
typedef struct regard_backward_args {
  size_t struct_size;
  const regard_args* forward;
  const regard_tensor* dout;  /* shape of out, q's type or f32 */
  const regard_tensor* dlse;  /* f32, shape of lse; NULL: none */
  const regard_tensor *dq, *dk, *dv; /* written; shapes of q, k and v, all in q's type or all f32 */
  const regard_tensor* dbias; /* written; shape of bias, its type or f32; NULL: not wanted */
  const regard_tensor* dsink; /* written; f32 (Hq); NULL: not wanted */
} regard_backward_args;
#define REGARD_BACKWARD_ARGS_INIT {.struct_size = sizeof(regard_backward_args)}

typedef struct regard_selection regard_selection; /* which kernel runs a problem, and why */
typedef struct regard_plan regard_plan;           /* a selection with tiles, splits and workspace fixed */

/* ---- One call: problem, selection, plan, launch. options NULL: all defaults. If `selection` is not NULL it gets a
 * handle that tells which kernel ran. ---- */
REGARD_API regard_status regard_attention(const regard_args* args, const regard_options* options,
                                          regard_selection** selection);
/* Requires cu_seqlens_q. */
REGARD_API regard_status regard_varlen_attention(const regard_args* args, const regard_options* options,
                                                 regard_selection** selection);
/* Requires cache_seqlens; appends k_new and v_new in place where given. */
REGARD_API regard_status regard_with_kvcache(const regard_args* args, const regard_options* options,
                                             regard_selection** selection);
/* Gradients for q, k, v, bias and sink, given those of out and lse. */
REGARD_API regard_status regard_attention_backward(const regard_backward_args* args, const regard_options* options,
                                                   regard_selection** selection);
/* (o_a, lse_a) + (o_b, lse_b). */
REGARD_API regard_status regard_merge_states(const regard_tensor* o_a, const regard_tensor* lse_a,
                                             const regard_tensor* o_b, const regard_tensor* lse_b,
                                             const regard_tensor* out, const regard_tensor* lse_out);

/* The same on tensors of a GPU, put on a stream. */
REGARD_API regard_status regard_merge_states_on(const regard_tensor* o_a, const regard_tensor* lse_a,
                                                const regard_tensor* o_b, const regard_tensor* lse_b,
                                                const regard_tensor* out, const regard_tensor* lse_out, void* stream);
/* Waits for `stream` of the GPU, then fails if a kernel has met a bad length or table entry since the last such
 * failure. */
REGARD_API regard_status regard_check_device(int32_t device_index, void* stream);

/* ---- What attention itself never holds, for small cases: entries of queries and keys that no sequence has are 0. Both
 * check args as a call does; k_new must be absent, out may be. `map` is row-major (B, Hq, Sq, Skv), the longest lengths
 * of the call, and at most 256 MiB. options' kernels and exclude play no part: the reference computes this. ---- */
/* The softmax before dropout; map f32. */
REGARD_API regard_status regard_attention_probabilities(const regard_args* args, const regard_options* options,
                                                        const regard_tensor* map);
/* What dropout keeps, whatever causal or a mask hides; map bool. */
REGARD_API regard_status regard_dropout_mask(const regard_args* args, const regard_options* options,
                                             const regard_tensor* map);

/* ---- Problems are text: "prefill b=1 sq=4096 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 causal" (docs/problem.md). ---- */
/* Reads and checks `problem` and writes it back in its canonical form. */
REGARD_API regard_status regard_problem_parse(const char* problem, char* buffer, size_t buffer_bytes, size_t* needed);
/* The problem of a call. */
REGARD_API regard_status regard_problem_print(const regard_args* args, const regard_options* options, char* buffer,
                                              size_t buffer_bytes, size_t* needed);

REGARD_API regard_status regard_backward_problem_print(const regard_backward_args* args, const regard_options* options,
                                                       char* buffer, size_t buffer_bytes, size_t* needed);

/* ---- Selection. kernels and exclude as in regard_options. ---- */
REGARD_API regard_status regard_select(const char* problem, const char* kernels, const char* exclude,
                                       regard_selection** selection);
/* For a device: "cpu", "cuda", "cuda:1", or a GPU by name, here or not ("T4", "H100"), for looking at only. */
REGARD_API regard_status regard_select_on(const char* problem, const char* device, const char* kernels,
                                          const char* exclude, regard_selection** selection);
REGARD_API void regard_selection_destroy(regard_selection* selection); /* NULL is fine */
/* Strings live as long as the handle. */
REGARD_API const char* regard_selection_kernel(const regard_selection* selection);
REGARD_API const char* regard_selection_numerics(const regard_selection* selection); /* equal ids give equal bits */
/* Problem, device, chosen kernel, plan, and every rejected kernel with its reason and remedy. */
REGARD_API regard_status regard_selection_explain(const regard_selection* selection, regard_format format, char* buffer,
                                                  size_t buffer_bytes, size_t* needed);

/* ---- Plan once, launch often. The problem's batch, sq, skv and append are upper bounds for its launches. ---- */
/* threads 0: regard's shared default executor (REGARD_THREADS, or all cores); else an executor of the plan's own. */
REGARD_API regard_status regard_plan_create(const regard_selection* selection, int32_t threads, regard_plan** plan);
REGARD_API void regard_plan_destroy(regard_plan* plan); /* NULL is fine */
REGARD_API size_t regard_plan_workspace_bytes(const regard_plan* plan);
/* Checks args against the plan, then runs; allocates nothing unless it fails. */
REGARD_API regard_status regard_launch(const regard_plan* plan, const regard_args* args, void* workspace,
                                       size_t workspace_bytes);
/* The same for a plan of the phase backward. */
REGARD_API regard_status regard_launch_backward(const regard_plan* plan, const regard_backward_args* args,
                                                void* workspace, size_t workspace_bytes);

/* ---- The kernel table, in order of preference. ---- */
REGARD_API size_t regard_kernel_count(void);
REGARD_API const char* regard_kernel_name(size_t index); /* NULL from regard_kernel_count() on */

#ifdef __cplusplus
}
#endif
