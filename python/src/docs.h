// Docstrings of the calls. The first line is the signature that inspect.signature reads.
#pragma once

namespace regard::python {

#define REGARD_MAP_OPTIONS                                                                                            \
  "scale=None, causal=False, window=(None, None), chunk=None, softcap=0.0, alibi_slopes=None, bias=None, mask=None, "         \
  "sink=None, qv=None, leftpad=None, q_offset=None, seqused_q=None, seqused_kv=None, q_descale=None, "                \
  "k_descale=None, v_descale=None, dropout=0.0, seed=0, offset=0"
#define REGARD_OPTIONS REGARD_MAP_OPTIONS ", invariance='full', kernel=None, max_seqlen_q=None, max_seqlen_kv=None"
#define REGARD_MAP                                                                                                    \
  "(q, k, v, cu_seqlens_q=None, cu_seqlens_kv=None, *, block_table=None, seqlens_kv=None, kv_indptr=None, "           \
  "kv_indices=None, kv_last_page_len=None, kv_layout='NHD', cache_seqlens=None, cache_batch_idx=None, "               \
  "rotary_cos=None, rotary_sin=None, rotary='none', rotary_seqlens=None, " REGARD_MAP_OPTIONS ")\n--\n\n"
#define REGARD_TAIL REGARD_OPTIONS ", out=None, out_dtype=None, return_lse=False"

#define REGARD_TAIL_DOC                                                                                               \
  "Options, the same in every call (docs/semantics.md has the last word on each):\n"                                  \
  "  scale         factor of the scores; default 1/sqrt(D), with qv 1/sqrt(D + Dv)\n"                                 \
  "  causal        query i sees keys up to its own position, the ends of both sequences aligned\n"                    \
  "  window        (left, right), each a number of keys or None: inclusive distances from the query\n"                \
  "  chunk         attention inside chunks of so many keys\n"                                                         \
  "  softcap       cap > 0: score = cap * tanh(score / cap)\n"                                                        \
  "  alibi_slopes  f32 (Hq) or (B, Hq)\n"                                                                             \
  "  bias          f32, f16 or bf16 (B|1, Hq|1, Sq|1, Skv|1), added to the scores\n"                                  \
  "  mask          bool or uint8, the same shapes; nonzero: attend\n"                                                 \
  "  sink          (Hq), f32 or q's type: a score without a value in every softmax\n"                                 \
  "  qv            as q with v's width: a second query against the values\n"                                          \
  "  leftpad, q_offset, seqused_q, seqused_kv   int32 (B), arrays or lists\n"                                         \
  "  q_descale, k_descale, v_descale            f32 (B, Hkv), with fp8 only\n"                                        \
  "  dropout, seed, offset   probability, and the counter of its random numbers\n"                                    \
  "  invariance    'full', 'batch' or 'none': which bits may not change with the company of a row\n"                  \
  "  kernel        a kernel's name, a dotted prefix, or a list of them: only these may run, in this order\n"          \
  "  max_seqlen_q, max_seqlen_kv   bounds for lengths that lie on a GPU, where no call reads them; default: what the\n"  \
  "                tensors can hold. On the CPU they are not needed\n"                                                  \
  "  out           a tensor for the result; out_dtype: its type ('f32', torch.float16, numpy.float32, ...)\n"         \
  "  return_lse    also return the log-sum-exp of each row, f32, natural logarithm\n\n"                               \
  "Types: q f32, f16, bf16 or fp8; k and v the same, or fp8 (f8e4m3, f8e5m2). Accumulation in f32.\n"                 \
  "Returns out, or (out, lse), in the library of q: torch in, torch out; NumPy in, NumPy out.\n"                      \
  "Raises regard.Error (a ValueError with .field, .value, .expected) before anything is written."

inline constexpr char kAttentionDoc[] =
    "attention(q, k, v, *, " REGARD_TAIL ")\n--\n\n"
    "Exact attention over dense tensors.\n\n"
    "Shapes: q (B, Sq, Hq, D), k (B, Skv, Hkv, D), v (B, Skv, Hkv, Dv); out (B, Sq, Hq, Dv), lse (B, Hq, Sq).\n"
    "Any strides with a contiguous last dim; Hq a multiple of Hkv; D and Dv from 1 to 512.\n\n" REGARD_TAIL_DOC;

inline constexpr char kHeadsFirstDoc[] =
    "attention_heads_first(q, k, v, *, " REGARD_TAIL ")\n--\n\n"
    "attention for torch's order of dims: q, k, v, qv and out are (B, H, S, D). Everything else as attention.";

inline constexpr char kVarlenDoc[] =
    "varlen_attention(q, k, v, cu_seqlens_q, cu_seqlens_kv=None, *, block_table=None, seqlens_kv=None, kv_indptr=None, "
    "kv_indices=None, kv_last_page_len=None, kv_layout='NHD', " REGARD_TAIL ")\n--\n\n"
    "Exact attention over packed sequences, or packed queries over a paged cache.\n\n"
    "Shapes: q (Tq, Hq, D); k (Tkv, Hkv, D), v (Tkv, Hkv, Dv) with cu_seqlens_kv, or pages (pages, page_size, Hkv, D),\n"
    "kv_layout 'HND': (pages, Hkv, page_size, D), with block_table (B, max_pages) and seqlens_kv (B), or with\n"
    "kv_indptr (B + 1), kv_indices and kv_last_page_len (B). cu_seqlens: (B + 1), first 0, not decreasing.\n"
    "Index arguments are int32 arrays or lists of numbers. out (Tq, Hq, Dv), lse (Hq, Tq).\n\n" REGARD_TAIL_DOC;

inline constexpr char kKvCacheDoc[] =
    "with_kvcache(q, k_cache, v_cache, k_new=None, v_new=None, *, cache_seqlens, cache_batch_idx=None, "
    "block_table=None, kv_indptr=None, kv_indices=None, kv_last_page_len=None, kv_layout='NHD', cu_seqlens_q=None, "
    "cu_seqlens_new=None, rotary_cos=None, rotary_sin=None, rotary='none', rotary_seqlens=None, " REGARD_TAIL ")\n--\n\n"
    "Attention over a KV cache; new tokens are written into it first, in place.\n\n"
    "Shapes: q (B, Sq, Hq, D), or (Tq, Hq, D) with cu_seqlens_q; k_cache, v_cache (rows, capacity, Hkv, D|Dv), or pages\n"
    "as in varlen_attention; k_new (B, Snew, Hkv, D), v_new (B, Snew, Hkv, Dv), packed with cu_seqlens_new.\n"
    "cache_seqlens: int32 (B), the keys that each row holds before the call; it is not changed.\n"
    "cache_batch_idx: int32 (B), which row of the cache (or of the block table) each query reads.\n"
    "rotary_cos, rotary_sin: (positions, rotary_dim / 2), f32 or q's type; rotary 'interleaved' or 'half' turns q and\n"
    "k_new from position cache_seqlens (or rotary_seqlens) on.\n\n" REGARD_TAIL_DOC;

inline constexpr char kMergeDoc[] =
    "merge_states(o_a, lse_a, o_b, lse_b)\n--\n\n"
    "Merges two partial results over different keys into the result over all of them.\n\n"
    "Shapes: o (B, S, H, Dv) with lse (B, H, S), or (T, H, Dv) with (H, T); o f32, f16 or bf16, lse f32.\n"
    "Returns (out, lse), out in o_a's type. Merging with (0, -inf) changes nothing.\n"
    "Raises regard.Error for shapes and types that do not fit.";

inline constexpr char kBackwardDoc[] =
    "attention_backward(dout, q, k, v, out, lse, *, dlse=None, cu_seqlens_q=None, cu_seqlens_kv=None, " REGARD_OPTIONS
    ", dq=None, dk=None, dv=None, dbias=False, dsink=False, grad_dtype=None)\n--\n\n"
    "Gradients of attention, or with cu_seqlens of varlen_attention, for q, k, v, and on request bias and sink.\n\n"
    "q, k, v and the options: those of the forward call; out and lse: what it returned (lse the natural logarithm).\n"
    "dout: as out, in q's type or f32. dlse: f32 as lse, the gradient of lse. Probabilities are recomputed from lse.\n"
    "dq, dk, dv: tensors for the results, in q's type or f32; made where absent, in grad_dtype ('f32' or q's type).\n"
    "dbias: True or a tensor of bias' shape, in its type or f32, summed over the extents of 1. dsink: True or f32 (Hq).\n"
    "Gradients of grouped heads are summed in f32 and rounded once; the bits do not depend on the number of threads.\n\n"
    "Returns regard.Gradients(dq, dk, dv, dbias, dsink), None for those not asked for, in the library of q.\n"
    "Raises regard.Error before anything is written. Caches, pages, fp8 and qv have no backward pass.";

#define REGARD_MAP_DOC                                                                                                \
  "Shapes and options: those of attention, varlen_attention (with cu_seqlens_q) or with_kvcache (with\n"              \
  "cache_seqlens) that appends nothing; no kernel=, no results. Entries of queries and keys that no sequence has\n"   \
  "are 0.\n"                                                                                                          \
  "To look at small cases: computed in f64 by the reference.\n\n"                                                     \
  "Raises regard.Error, also for a map of more than 256 MiB, before any work."

inline constexpr char kProbabilitiesDoc[] =
    "attention_probabilities" REGARD_MAP
    "The softmax of a call before dropout: f32 (B, Hq, Sq, Skv), in the library of q.\n\n"
    "A row sums to 1, to less where a sink takes its part, and to 0 where it sees no key.\n\n" REGARD_MAP_DOC;

inline constexpr char kDropoutMaskDoc[] =
    "dropout_mask" REGARD_MAP
    "What dropout keeps in a call: bool (B, Hq, Sq, Skv), in the library of q. Causal bounds and masks change nothing.\n\n"
    "out = sum over keys of probability * kept / (1 - dropout) * v.\n\n" REGARD_MAP_DOC;

#undef REGARD_MAP
#undef REGARD_MAP_DOC
#undef REGARD_MAP_OPTIONS
#undef REGARD_OPTIONS
#undef REGARD_TAIL
#undef REGARD_TAIL_DOC

}  // namespace regard::python
