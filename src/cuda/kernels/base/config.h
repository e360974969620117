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

// Forward by tensor cores (sm80/prefill.h, sm80/decode.h).
struct TensorConfig {
  Products products;
  Element type;       // operands: kF16 or kBF16, q's type; fp8 q: kF16
  bool fp8_q;         // q is fp8 (e4m3 or e5m2 at run time)
  bool fp8_kv;        // k and v are fp8 (e4m3 or e5m2 at run time)
  int head_dim;       // of q and k, padded: a multiple of 16, at most 256
  int head_dim_v;     // of v, padded likewise
  int warps;
  int tiles;          // prefill: tiles of 16 query rows a warp; decode: 1, shared by all warps
  int stages;         // blocks of K and V in shared memory: 1 (K loads under PV, V under QK) or 2
  bool split;         // decode: a block of threads a split, its warps share the keys and the columns of one tile
  bool options;       // softcap, bias, mask, ALiBi and dropout as well; else causal, windows, chunks, lengths, leftpad, sink

  REGARD_BOTH constexpr int Threads() const { return warps * 32; }
  REGARD_BOTH constexpr int TileRows() const { return split ? 16 : warps * tiles * 16; }
};

// Shared memory of a TensorConfig, offsets in bytes. Rows of 16-bit tiles are 16 bytes longer than their data: the pitch
// is an odd number of 16-byte pieces, so that the eight rows of an ldmatrix lie in eight different bank groups.
struct TensorLayout {
  REGARD_BOTH static constexpr int Pitch(int dim) { return dim + 8; }         // elements of 2 bytes
  REGARD_BOTH static constexpr int RawPitch(int dim) { return dim + 16; }     // bytes: fp8 as it comes
  static constexpr int kPlaceBytes = 2 * (2 * kBlockKeys + 8) * 4;
  static constexpr int kWeightsPitch = kBlockKeys + 8;

  int rows;                 // TileRows() entries of 16 bytes: what each query row is and sees
  int places;               // two tables of kPlaceBytes together: where the keys of a block lie (tile/kv_gather.h)
  int q, k, v;              // tiles of operands; k and v: `stages` of them, with fp8 one of each
  int raw_k, raw_v;         // fp8: `stages` tiles of bytes
  int weights;              // decode: 16 x kWeightsPitch, 16-bit
  int maxima;               // decode: warps x 16 f32
  int sums;                 // decode: warps x 16 x 4 f32
  int words;                // decode: 2 x warps x 32 words of keys seen (sm80/nonfinite.h)
  int bytes;

  REGARD_BOTH constexpr explicit TensorLayout(const TensorConfig& c)
      : rows(0), places(0), q(0), k(0), v(0), raw_k(0), raw_v(0), weights(0), maxima(0), sums(0), words(0), bytes(0) {
    const int tiles = c.fp8_kv ? 1 : c.stages, raw = c.fp8_kv ? c.stages : 0, split = c.split ? 1 : 0;
    places = rows + c.TileRows() * 16;
    q = places + kPlaceBytes;
    k = q + c.TileRows() * Pitch(c.head_dim) * 2;
    v = k + tiles * kBlockKeys * Pitch(c.head_dim) * 2;
    raw_k = v + tiles * kBlockKeys * Pitch(c.head_dim_v) * 2;
    raw_v = raw_k + raw * kBlockKeys * RawPitch(c.head_dim);
    weights = raw_v + raw * kBlockKeys * RawPitch(c.head_dim_v);
    maxima = weights + split * 16 * kWeightsPitch * 2;
    sums = maxima + split * c.warps * 16 * 4;
    words = sums + split * c.warps * 16 * 4 * 4;
    bytes = words + split * 2 * c.warps * 32 * 4;
  }
};
REGARD_BOTH constexpr TensorLayout LayoutOf(const TensorConfig& c) { return TensorLayout(c); }
REGARD_BOTH constexpr int SharedBytes(const TensorConfig& c) { return TensorLayout(c).bytes; }

// f32 words of one slot of ForwardParams::states.
REGARD_BOTH constexpr i64 StateFloats(const TensorConfig& c) { return static_cast<i64>(c.TileRows()) * (c.head_dim_v + 2); }

// Forward by CUDA cores (generic/forward.h): any types, all options, f32 products and sums in one chain.
struct GenericConfig {
  int head_dim;       // of q and k, padded to 64, 128, 256 or 512
  int head_dim_v;     // of v, padded likewise
  bool split;         // decode: a block of threads a split
  bool qv = false;    // a second query against v

  static constexpr int kThreads = 128;
  static constexpr int kTileRows = 16;
  static constexpr int kChunk = 32;   // dims of keys in shared memory at a time
  REGARD_BOTH constexpr int Threads() const { return kThreads; }
  REGARD_BOTH constexpr int TileRows() const { return kTileRows; }
};
struct GenericLayout {
  static constexpr int kKeyPitch = GenericConfig::kChunk + 1;  // f32; odd, so that 32 keys lie in 32 banks
  // f32; the four rows of a warp begin 8 banks apart, where their eight threads each take neighbouring keys.
  static constexpr int kWeightPitch = kBlockKeys + 8;

  int rows;           // 16 entries of 16 bytes
  int places;         // TensorLayout::kPlaceBytes
  int q;              // dims x 16 rows, f32; qv's dims, where there is one, behind them
  int keys;           // 64 x kKeyPitch, f32
  int weights;        // 16 x kWeightPitch, f32: dot products, then weights
  int factors;        // 16, f32
  int bytes;

  REGARD_BOTH constexpr explicit GenericLayout(const GenericConfig& c)
      : rows(0), places(0), q(0), keys(0), weights(0), factors(0), bytes(0) {
    places = rows + c.kTileRows * 16;
    q = places + TensorLayout::kPlaceBytes;
    keys = q + (c.head_dim + (c.qv ? c.head_dim_v : 0)) * c.kTileRows * 4;
    weights = keys + kBlockKeys * kKeyPitch * 4;
    factors = weights + c.kTileRows * kWeightPitch * 4;
    bytes = factors + c.kTileRows * 4;
  }
};
REGARD_BOTH constexpr GenericLayout LayoutOf(const GenericConfig& c) { return GenericLayout(c); }
REGARD_BOTH constexpr int SharedBytes(const GenericConfig& c) { return GenericLayout(c).bytes; }
REGARD_BOTH constexpr i64 StateFloats(const GenericConfig& c) { return static_cast<i64>(c.TileRows()) * (c.head_dim_v + 2); }

// Kernels of rows (append, combine, merge): a warp a row.
inline constexpr int kRowThreads = 128;
inline constexpr int kRowsABlock = kRowThreads / 32;

}  // namespace regard::cuda
