// What the ISA objects see of a launch: plain numbers and addresses, nothing with a constructor. Built once per launch by
// src/cpu/forward.cc; everything here is borrowed from the caller's tensors or from the launch workspace.
//
// ISA objects must leak no weak symbol (a debug build would let the linker pick an AVX-512 copy of a shared inline
// function), so this header and everything under simd/ and tile/ use only static functions and plain structs.
#pragma once

#include <stdint.h>

#include "src/problem/phase.h"

namespace regard::cpu {

// ---- Numerics: constants of every CPU kernel set. Changing one changes bits (docs/semantics.md, "Determinism"). ----
// Block of keys over which the running maximum and sum advance; scores of one row tile and block: 12 x 512 x 4 = 24 KiB.
inline constexpr int kBlockTokens = 512;
// Keys after which a state (o, m, l) is folded. Decode runs splits in parallel: 32 of them at 32k keys; the states of
// all splits cost (Dv + 2) * 4 / (1024 * 2 * Dv * 2) = 0.1 % of the bf16 KV bytes per query head of a group.
inline constexpr int kSplitTokens = 1024;
static_assert(kSplitTokens % kBlockTokens == 0);

// ---- Scheduling: free to change, no bit depends on them. ----
// Query rows (positions x group) that meet a packed block of K and V in turn; fewer where threads would stand idle. Zen 4,
// one thread, d=128 s=4096 full, % of the roof in f32 and bf16: 192 rows 90.6 and 85.2, 384 rows 92.8 and 86.0, 576 rows
// 91.1 and 87.5.
inline constexpr int kTaskRows = 576;
inline constexpr int kMinTaskRows = 96;
static_assert(kTaskRows % kMinTaskRows == 0);
// Panels of keys that decode fetches ahead of the one at hand. Zen 4, one thread, 32k tokens of 8 heads of 128, ms with
// 0, 1, 2, 3, 4 of them: bf16 13.5, 5.8, 5.6, 5.6, 5.9, f32 28.3, 13.2, 13.3, 13.4, 13.6; random pages of 16 alike.
inline constexpr int kPrefetchPanels = 1;
inline constexpr int kMostPrefetchPanels = 4;
inline constexpr int kDecodeRows = 128;  // rows of all kv heads of a decode task; scores 128 x 512 x 4 = 256 KiB

// MiB of packed keys and values that one slot keeps for the tasks to come: 65536 keys in f32, 131072 in bf16 (D = 128).
// Without it each task packs every key anew, from rows 2 or 4 KiB apart that other work has meanwhile pushed out of the
// caches: 25 to 34 cycles a line, 3 to 5 % of the time. Zen 4, 32 heads over 8, % of the roof without and with it, turn
// about: s = 4096 full bf16 83.4 and 88.0 (2 threads), s = 4096 causal f32 89.8 and 91.5, s = 512 causal bf16 75.2 and
// 76.5, f32 76.0 and 79.2.
inline constexpr int kKeepMiB = 64;

enum class Elem : uint8_t { kF32, kF16, kBF16, kF8E4M3, kF8E5M2 };

// One sequence, in keys counted from its first real one (j' = j - leftpad).
struct Seq {
  int64_t q_row, rows, seq_q;  // as Sequence
  int64_t seq_kv, q_offset, leftpad;
  int64_t kv_row;
};

// Addresses of k or v: key j of a sequence lies at data + TokenOffset(j) + head * head_stride. All strides in bytes.
struct KvView {
  const char* data;
  int64_t stride0;      // batch row, packed token, or page
  int64_t token_stride; // token inside a batch row, or slot inside a page
  int64_t head_stride;
};

enum class KvKind : uint8_t { kDense, kPacked, kPaged };

struct BroadcastView {  // bias or mask: strides in bytes, 0 where broadcast; null data: absent
  const char* data;
  int64_t b, h, i, j;
};

// Packed keys and values that the prefill tasks of one kv head share (tile/kept.h): `slots` of `blocks` key blocks each.
struct KeptPanels {
  int64_t slots, blocks;       // blocks: the first so many of a sequence
  int64_t block_floats;
  float* data;
  uint64_t *users, *states;    // by slot; by slot and block
};

struct ForwardParams {
  // Shapes.
  int64_t batch, heads_q, heads_kv, group;
  int head_dim, head_dim_v, qv_dim;  // qv_dim: head_dim_v with qv, else 0
  bool varlen;                       // packed q

  // Tensors. q is the rotated copy where rotary is on.
  const char* q;
  int64_t q_stride_b, q_stride_s, q_stride_h;     // bytes; packed: b unused
  const char* qv;
  int64_t qv_stride_b, qv_stride_s, qv_stride_h;
  KvView k, v;
  Elem q_type, kv_type, out_type;
  KvKind kv_kind;
  const int32_t* table;        // page numbers: block table rows, or CSR indices
  int64_t table_stride;        // entries between block table rows; 1 for CSR (kv_row is the first entry)
  int64_t page_size;
  char* out;
  int64_t out_stride_b, out_stride_s, out_stride_h;
  float* lse;                  // null: not wanted
  int64_t lse_stride_b, lse_stride_h, lse_stride_s;  // elements

  // Numerics and prefetching as the plan has them (src/cpu/tune.h).
  int block_tokens, split_tokens;    // kBlockTokens at most; a multiple of it
  int prefetch_panels;               // panels of keys that decode fetches ahead, up to kMostPrefetchPanels

  const Seq* seqs;
  const void* options;         // const AttentionOptions*; only VisibleRange looks

  // Score and its options.
  float scale;
  float softcap;
  bool transforms;             // softcap, ALiBi, bias or score_mod: scores are brought to natural units first
  bool masks;                  // boolean mask or mask_mod
  const float* alibi;
  int64_t alibi_stride_b;
  BroadcastView bias, mask;
  Elem bias_type;
  float (*score_mod)(const void*, float, int64_t, int64_t, int64_t, int64_t);
  const void* score_mod_ctx;
  bool (*mask_mod)(const void*, int64_t, int64_t, int64_t, int64_t);
  const void* mask_mod_ctx;
  const void* sink;
  Elem sink_type;
  bool drops;                  // dropout > 0
  uint32_t drop_threshold;     // kept where Philox gives at least this; of no account where drop_scale is 0
  float drop_scale;            // 1 / (1 - p); 0 for p = 1
  uint64_t drop_seed, drop_offset;
  const float *q_descale, *k_descale, *v_descale;  // (B, Hkv) or null
  int64_t q_descale_stride[2], k_descale_stride[2], v_descale_stride[2];

  uint64_t* phase_ticks;       // kPhases counters of this worker, or null: `regard bench --profile`

  KeptPanels kept;

  // Partial states of decode splits: row of (Dv padded + 2) floats: o, then m, l.
  float* states;
  int64_t state_floats;        // floats of one state
};

// Parts of a task that a profile tells apart.
enum PhaseTicks : int32_t { kTicksPack, kTicksScores, kTicksSoftmax, kTicksValues, kTicksMerge, kTicksOther, kPhases };

// Work of one executor index.
struct Task {
  enum Kind : int32_t { kPrefill, kDecode } kind;
  int32_t b;
  int32_t head_begin, head_end;  // kv heads
  int64_t begin, end;            // prefill: rows (position * group + g); decode: splits
  int64_t state;                 // decode: index of the first state it writes; -1: it writes the output itself
  float cost;
  float lead;                    // of the longest task of its sequence (prefill), or its own
};

// Folding the splits of one decode sequence: all its query rows.
struct Combine {
  int32_t b;
  int32_t splits;
  int64_t state;                 // first state: [split][head_q][position]
};

// One ISA's instantiation for one element arithmetic (f32 products, or bf16 pairs).
struct ForwardKernels {
  int rows;                      // query rows of a register tile
  int64_t (*scratch_floats)(int head_dim, int qv_dim, int head_dim_v);  // per worker, 64-byte aligned
  int64_t (*kept_floats)(int head_dim, int qv_dim, int head_dim_v);     // of one block of KeptPanels
  int64_t (*state_floats)(int head_dim_v);
  void (*run)(const ForwardParams&, const Task&, float* scratch);
  void (*combine)(const ForwardParams&, const Combine&, int64_t head_q, int64_t position, float* scratch);
  // What dropout multiplies weights by: query i of (b, head_q) against keys [first, first + n) (tile/dropout.h).
  void (*drop_factors)(const ForwardParams&, const Seq&, int64_t b, int64_t head_q, int64_t i, int64_t first, int n,
                       float* factor);
};

// Visible keys [begin, end) of query i, in j' (src/cpu/forward.cc; wraps VisibleKeys).
struct Range {
  int64_t begin, end;
};
Range VisibleRange(const ForwardParams& p, const Seq& s, int64_t i);
// m + log(l), the logarithm in double, in one place so that every ISA gives the same lse for the same state.
float LseOf(float m, float l);
// Element type conversions for odd places (one element at a time).
float LoadElem(const void* p, Elem t);
void StoreElem(void* p, Elem t, float x);

extern const ForwardKernels kScalarF32;
#if defined(__x86_64__)
extern const ForwardKernels kAvx2F32, kAvx512F32, kAvx512Bf16Pairs;
#elif defined(__aarch64__)
extern const ForwardKernels kNeonF32;
#endif

}  // namespace regard::cpu
