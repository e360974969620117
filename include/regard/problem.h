// Problem: one attention computation as a plain value. No pointers; printable, parseable, hashable, comparable.
//
// The text form is one line, for example
//   prefill b=1 sq=4096 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 causal window=1023,0 softcap=30 page=16
// and is total both ways: Parse(Print(p)) == p. docs/problem.md lists every word and its default.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "regard/dtype.h"
#include "regard/export.h"

namespace regard {

enum class Phase : std::uint8_t { kPrefill, kDecode, kMixed, kBackward };
enum class KvLayout : std::uint8_t { kNHD, kHND };       // page: (slot, head, dim) or (head, slot, dim)
enum class TableKind : std::uint8_t { kBlock, kCsr };    // block_table (B, max_pages), or indptr/indices/last_page_len
enum class DenseOrder : std::uint8_t { kBSHD, kBHSD };   // memory order of dense tensors in generated cases
enum class Placement : std::uint8_t { kOrdered, kRandom };  // of pages in generated cases
enum class Rotary : std::uint8_t { kNone, kInterleaved, kHalf };
// kFull: a row's bits depend on nothing but the row (SEMANTICS: docs/semantics.md). kBatch: all of that except how a
// prompt is chunked. kNone: only run-to-run repeatability.
enum class Invariance : std::uint8_t { kFull, kBatch, kNone };

// What is computed; the same for every sequence of a call.
struct AttentionOptions {
  std::optional<double> scale;              // default 1/sqrt(D), with qv 1/sqrt(D + Dv); 0 and negative are legal
  bool causal = false;                      // j <= p, p = i + q_offset
  std::optional<std::int64_t> window_left;  // j >= p - L, inclusive; L >= 0
  std::optional<std::int64_t> window_right; // j <= p + R, inclusive; R >= 0
  std::optional<std::int64_t> chunk;        // attention_chunk C >= 1
  double softcap = 0;                       // cap > 0: s = cap * tanh(s / cap); 0: off
  double dropout = 0;                       // p in [0, 1]
  Rotary rotary = Rotary::kNone;            // only with an append
  Invariance invariance = Invariance::kFull;
  bool operator==(const AttentionOptions&) const = default;
};

// A list of lengths: explicit runs ("1024*2,4096*30") or uniform(lo, hi) drawn with Problem::seed.
struct REGARD_API LengthSpec {
  struct Run {
    std::int64_t length = 0, count = 1;
    bool operator==(const Run&) const = default;
  };
  std::vector<Run> runs;
  std::optional<std::int64_t> uniform_lo, uniform_hi;  // both or neither; then runs is empty
  bool operator==(const LengthSpec&) const = default;
  bool empty() const noexcept { return runs.empty() && !uniform_lo; }
  // The `batch` lengths; `salt` keeps qlens and lens of one seed apart.
  std::vector<std::int64_t> Expand(std::int64_t batch, std::uint64_t seed, std::uint64_t salt) const;
  std::int64_t Max() const noexcept;  // uniform: hi
  std::int64_t Min() const noexcept;  // uniform: lo
};

struct REGARD_API Problem {
  Phase phase = Phase::kPrefill;
  std::int64_t batch = 1;
  std::int64_t seq_q = 1;         // longest query run of a sequence
  std::int64_t seq_kv = 1;        // longest key run, appended and left-pad keys included
  std::int64_t heads_q = 1;
  std::int64_t heads_kv = 1;
  std::int64_t head_dim = 64;     // D of q and k, 1..512
  std::int64_t head_dim_v = 64;   // Dv of v and out, 1..512
  DType dtype = DType::kF32;      // of q (and out, unless q is fp8: bf16)
  DType kv_dtype = DType::kF32;   // of k and v
  std::optional<DType> out_dtype; // absent: dtype, or bf16 for fp8 q
  std::optional<std::int64_t> page_size;  // absent: not paged; else >= 1
  KvLayout layout = KvLayout::kNHD;
  TableKind table = TableKind::kBlock;
  bool varlen = false;            // packed q (and, unless paged, packed k and v)
  AttentionOptions options;
  bool alibi = false;             // slopes given
  bool bias = false;              // dense additive bias given
  bool mask = false;              // boolean mask given
  bool sink = false;
  bool leftpad = false;
  bool qv = false;
  bool q_offset = false;          // per-sequence q_offset given
  bool score_mod = false;         // a caller's function changes scores (step 4)
  bool mask_mod = false;          // a caller's function hides keys (step 5)
  bool lse = false;               // LSE wanted
  std::optional<std::int64_t> append;  // longest run of new tokens per sequence; absent: no append

  // Only with Phase::kBackward, which always reads the LSE and always computes dq, dk and dv.
  std::optional<DType> grad_dtype;  // of dq, dk and dv; absent: dtype; else f32 or dtype
  bool dlse = false;                // a gradient of the LSE comes in
  bool dbias = false;               // the gradient of bias is wanted
  bool dsink = false;               // the gradient of sink is wanted

  // Only for generated cases (run, check, bench): what the inputs look like. Kernels and selection never read these.
  LengthSpec lens;                // used key lengths; empty: all seq_kv
  LengthSpec qlens;               // query lengths; empty: all seq_q
  DenseOrder order = DenseOrder::kBSHD;
  Placement placement = Placement::kOrdered;
  std::uint64_t seed = 1;
  double qscale = 1;              // standard deviation of q
  double mask_density = 0;        // share of hidden entries in the generated boolean mask

  bool operator==(const Problem&) const = default;

  std::int64_t Group() const noexcept { return heads_kv > 0 ? heads_q / heads_kv : 0; }
  DType OutType() const noexcept { return out_dtype ? *out_dtype : IsFp8(dtype) ? DType::kBF16 : dtype; }
  DType GradType() const noexcept { return grad_dtype.value_or(dtype); }
  double Scale() const noexcept;  // options.scale or its default
};

// One line; words at their defaults are left out, except phase, b, sq, skv, hq, hkv, d and dtype.
REGARD_API std::string Print(const Problem& p);
// Throws Error: unknown word (field "case", names the nearest known word), bad number, repeated word.
REGARD_API Problem ParseProblem(std::string_view text);

// The rules on the problem alone (docs/semantics.md); throws Error naming field, value, expectation.
REGARD_API void Validate(const Problem& p);

}  // namespace regard

template <>
struct std::hash<regard::Problem> {
  std::size_t operator()(const regard::Problem& p) const { return std::hash<std::string>{}(regard::Print(p)); }
};
