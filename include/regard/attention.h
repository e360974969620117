// The calls: attention over dense, packed (varlen) or paged keys, its gradients, append to a KV cache, merge of partial
// results.
// Meaning of every option: docs/semantics.md. Shapes: B batch, Sq/Skv lengths, Hq/Hkv heads, D/Dv head dims.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "regard/export.h"
#include "regard/plan.h"
#include "regard/problem.h"
#include "regard/status.h"
#include "regard/tensor.h"

namespace regard {

// Step 4 and the last line of step 5: a caller's function per score. It must be pure and thread-safe.
struct ScoreMod {
  float (*fn)(const void* ctx, float s, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) = nullptr;
  const void* ctx = nullptr;
};
struct MaskMod {
  bool (*fn)(const void* ctx, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) = nullptr;
  const void* ctx = nullptr;
};

// Tensors, lengths and run-time values of one call. Absent means std::nullopt. All views are on one device, those of
// index tensors too; these are i32, contiguous. out (and the cache being appended to) must not overlap any input.
struct AttentionArgs {
  // q: dense (B, Sq, Hq, D), packed (Tq, Hq, D) with cu_seqlens_q. k, v: dense (B', Skv, Hkv, D|Dv), packed
  // (Tkv, Hkv, D|Dv) with cu_seqlens_kv, or paged (pages, page_size, Hkv, D|Dv) NHD / (pages, Hkv, page_size, D|Dv) HND.
  // B' = B, or the rows of the cache that cache_batch_idx picks from. Any strides, last dim contiguous.
  TensorView q, k, v;
  KvLayout kv_layout = KvLayout::kNHD;         // of paged k and v
  TensorView out;                              // (B, Sq, Hq, Dv) or (Tq, Hq, Dv)
  std::optional<TensorView> lse;               // f32 (B, Hq, Sq) or (Hq, Tq)
  std::optional<TensorView> qv;                // as q with Dv

  std::optional<TensorView> cu_seqlens_q;      // (B+1), first 0, non-decreasing
  std::optional<TensorView> cu_seqlens_kv;     // (B+1)
  std::optional<TensorView> seqused_q;         // (B), 0 <= used <= owned
  std::optional<TensorView> seqused_kv;        // (B)
  std::optional<TensorView> seqlens_kv;        // (B), paged: keys of each sequence
  std::optional<TensorView> block_table;       // (B or cache rows, max_pages)
  std::optional<TensorView> kv_indptr;         // CSR paging: (B+1)
  std::optional<TensorView> kv_indices;        // (indptr[B])
  std::optional<TensorView> kv_last_page_len;  // (B), in [1, page_size] where the sequence has a page
  std::optional<TensorView> q_offset;          // (B); default Skv - Sq
  std::optional<TensorView> leftpad;           // (B), counts inside the sequence's keys

  // Append (WithKvCache): k_new (B, Snew, Hkv, D), v_new (B, Snew, Hkv, Dv), in q's type; written into k, v in place at
  // cache_seqlens[b] + t before attending; the sequence then has cache_seqlens[b] + Snew keys. Packed with cu_seqlens_new.
  std::optional<TensorView> k_new, v_new;
  std::optional<TensorView> cu_seqlens_new;    // (B+1)
  std::optional<TensorView> cache_seqlens;     // (B); also without append: the keys of each row
  std::optional<TensorView> cache_batch_idx;   // (B), rows of the cache, or of the block table
  std::optional<TensorView> rotary_cos, rotary_sin;  // (positions, rotary_dim/2), f32 or q's type
  std::optional<TensorView> rotary_seqlens;    // (B); base positions instead of cache_seqlens

  std::optional<TensorView> alibi_slopes;      // f32 (Hq) or (B, Hq)
  std::optional<TensorView> bias;              // f32, f16 or bf16, (B|1, Hq|1, Sq|1, Skv|1)
  std::optional<TensorView> mask;              // bool or u8, the same shape rule; nonzero = attend
  std::optional<TensorView> sink;              // (Hq), f32 or q's type
  std::optional<TensorView> q_descale, k_descale, v_descale;  // f32 (B, Hkv); default 1; only with fp8

  ScoreMod score_mod;
  MaskMod mask_mod;
  std::uint64_t dropout_seed = 0, dropout_offset = 0;
  // Bounds for lengths that lie on a GPU, where no host call can read them: queries and keys of the longest sequence.
  // Absent: what the tensors can hold. A longer sequence is an error that the kernels report.
  std::optional<std::int64_t> max_seqlen_q, max_seqlen_kv;
};

// The backward pass: gradients for q, k, v, bias and sink of a loss that depends on out, and on lse where dlse is given.
// Probabilities are recomputed as exp(s - lse), and rowsum(dout * out) is taken of the out that is given, so that out and
// lse may be those of a larger softmax of which k and v are a part (ring attention).
struct BackwardArgs {
  // The forward call's arguments. out and lse (required here) are as the forward wrote them and are only read, like all
  // the rest. No append, no pages, no cache rows, no fp8, no qv, no score_mod or mask_mod.
  AttentionArgs forward;
  TensorView dout;                  // shape of out, in q's type or f32
  std::optional<TensorView> dlse;   // f32, shape of lse
  TensorView dq, dk, dv;            // shapes of q, k, v; all three in q's type, or all three f32
  std::optional<TensorView> dbias;  // the shape of bias (summed over extents of 1), in its type or f32
  std::optional<TensorView> dsink;  // f32 (Hq)
};

// The exact problem of a call: lengths from the tensors, phase decode if no sequence has more than 15 queries,
// mixed if some have and some have not, else prefill. Of tensors on a GPU, whose lengths cannot be read, a bound: the
// longest that shapes, max_seqlen_q and max_seqlen_kv allow. Throws Error for shapes that make no problem.
REGARD_API Problem ProblemOf(const AttentionArgs& args, const AttentionOptions& options);
// The same for a backward call: phase backward; its word `lse` is not set.
REGARD_API Problem BackwardProblemOf(const BackwardArgs& args, const AttentionOptions& options);

// Memory that regard allocated for the caller.
class REGARD_API OwnedTensor {
 public:
  OwnedTensor() = default;
  // Uninitialised; on the CPU 64-byte aligned, on a GPU 256. Throws Error{"device"} where no memory can be had.
  OwnedTensor(DType dtype, std::initializer_list<std::int64_t> shape, Device device = {});
  const TensorView& view() const noexcept { return view_; }
  bool defined() const noexcept { return view_.data != nullptr || view_.rank > 0; }

 private:
  std::shared_ptr<void> memory_;
  TensorView view_;
};

struct CallControl {
  std::optional<KernelChoice> choice;
  Executor* executor = nullptr;   // default: DefaultExecutor()
  Workspace workspace;            // default: allocated for the call; on a GPU in the order of its stream
  Stream stream;                  // of a GPU: the call's work is put there, and the call returns before it is done
};

struct AttentionResult {
  OwnedTensor out;        // defined where regard allocated it (args.out.data was null)
  OwnedTensor lse;        // the same
  Selection selection;    // which kernel ran, and why
};

// One call: problem, selection, plan, launch. Covers dense, varlen, paged and mixed batches, and appends where k_new is
// given. out is allocated if args.out.data is null; lse likewise if `want_lse` and args.lse is absent.
REGARD_API AttentionResult Attention(AttentionArgs args, const AttentionOptions& options = {}, bool want_lse = false,
                                     const CallControl& control = {});
// Attention that requires packed q (cu_seqlens_q).
REGARD_API AttentionResult VarlenAttention(AttentionArgs args, const AttentionOptions& options = {},
                                           bool want_lse = false, const CallControl& control = {});
// Attention that requires a cache: cache_seqlens, and k_new/v_new unless nothing is appended.
REGARD_API AttentionResult WithKvCache(AttentionArgs args, const AttentionOptions& options = {}, bool want_lse = false,
                                       const CallControl& control = {});

struct BackwardResult {
  OwnedTensor dq, dk, dv;  // each defined where regard allocated it (its view's data was null)
  Selection selection;     // which kernel ran, and why
};

// One backward call: problem, selection, plan, launch. dq, dk and dv are allocated, contiguous, where their data is null:
// in the type of those that are given, else in q's.
REGARD_API BackwardResult AttentionBackward(BackwardArgs args, const AttentionOptions& options = {},
                                            const CallControl& control = {});

// (o_a, l_a) + (o_b, l_b) of docs/semantics.md. o: (B, S, H, Dv) or (T, H, Dv), f32/f16/bf16, lse: f32 (B, H, S) or
// (H, T). out may be o_a itself (same view), nothing else may overlap.
REGARD_API void MergeStates(const TensorView& o_a, const TensorView& lse_a, const TensorView& o_b,
                            const TensorView& lse_b, const TensorView& out, const TensorView& lse_out,
                            Stream stream = {});

// What attention works with and leaves nowhere, for looking at small cases: (B, Hq, Sq, Skv), dense, Sq and Skv the
// longest of the batch. Entry (b, h, i, j) counts i and j inside sequence b; 0 where it has no such query or key. The
// arguments are those of Attention (out and lse unused and optional; nothing is appended: k_new is refused). The f64
// reference computes them. Throws Error for a result of more than kMostMapBytes.
inline constexpr std::int64_t kMostMapBytes = std::int64_t{1} << 28;
// exp(s - lse), f32: softmax after every mask and before dropout, sink's share left out. A masked key has 0, a row that
// sees none 0 throughout, a row whose lse is NaN has NaN at the keys that it sees. With dropout v meets
// AttentionProbabilities * DropoutMask / (1 - p).
REGARD_API OwnedTensor AttentionProbabilities(const AttentionArgs& args, const AttentionOptions& options = {});
// bool: true where dropout keeps the pair, whether the query sees the key or not; left padding has false. Without dropout
// true throughout.
REGARD_API OwnedTensor DropoutMask(const AttentionArgs& args, const AttentionOptions& options = {});

}  // namespace regard
