// What is fixed when a kernel is compiled: plain structs, template arguments as a whole, printed into the instance's
// name. Nothing here changes a bit of a result but what the comments call numerics.
#pragma once

#include "base/types.h"

namespace regard::cuda {

// Numerics of every forward kernel: the running maximum advances over blocks of 64 keys, states fold at multiples of
// 2048, both counted from the first real key.
inline constexpr int kBlockKeys = 64;
inline constexpr int kSplitKeys = 2048;

// How the matrix products of a chip's generation are made: k8 steps of f16 (sm_75), k16 steps (sm_80 and later).
enum class Products : int { kK8, kK16 };

// Forward by tensor cores (sm80/forward.h).
struct TensorConfig {
  Products products;
  Element type;       // operands: kF16 or kBF16, q's type; fp8 q: kF16
  bool fp8_q;         // q is fp8 (e4m3 or e5m2 at run time)
  bool fp8_kv;        // k and v are fp8 (e4m3 or e5m2 at run time)
  int head_dim;       // of q and k, padded: a multiple of 16, at most 256
  int head_dim_v;     // of v, padded likewise
  int warps;          // of 16 query rows each; with `split` all share one tile of 16 rows
  int stages;         // blocks of K and V under way
  bool split;         // decode: one tile of 16 rows, warps share its keys and columns, a block of threads a split
  bool options;       // softcap, bias, mask, ALiBi, dropout, chunks as well; else causal, windows, lengths, leftpad, sinks

  constexpr int Threads() const { return warps * 32; }
  constexpr int TileRows() const { return split ? 16 : warps * 16; }
};

// Forward by CUDA cores (generic/forward.h): any types, all options, f32 products and sums in one chain.
struct GenericConfig {
  int head_dim;       // of q and k, padded to 64, 128, 256 or 512
  int head_dim_v;
  bool split;         // decode: a block of threads a split

  static constexpr int kThreads = 128;
  static constexpr int kTileRows = 16;
};

}  // namespace regard::cuda
