// Tiles of operands in shared memory: rows of query and key vectors, 16-bit, zero past the head dim and past the keys.
// Rows travel in pieces of 16 bytes; where address or strides do not allow that, element by element.
#pragma once

#include "base/config.h"
#include "base/params.h"
#include "ptx/async.h"
#include "ptx/convert.h"
#include "tile/kv_gather.h"

namespace regard::cuda::sm80 {

// Whether every row of `rows` can be read in pieces of 16 bytes.
REGARD_DEVICE bool InPieces(const Rows& rows, int element_bytes, int dim) {
  const u64 strides = static_cast<u64>(rows.batch | rows.row | rows.head) * static_cast<u64>(element_bytes);
  return ((reinterpret_cast<u64>(rows.data) | strides | static_cast<u64>(dim * element_bytes)) & 15) == 0;
}

// Eight 16-bit elements, or sixteen bytes, from element `first` of a row of `dim`; zeros past its end.
template <class T>
REGARD_DEVICE Vec16 GatherPiece(const void* data, i64 offset, int first, int dim) {
  constexpr int kCount = 16 / sizeof(T), kInWord = 4 / sizeof(T), kBits = 8 * sizeof(T);
  const Global<const T> from(static_cast<const T*>(data));
  Vec16 piece{{0, 0, 0, 0}};
  for (int e = 0; e < kCount; ++e) {
    if (first + e < dim) {
      piece.word[e / kInWord] |= static_cast<u32>(from.Load(offset + first + e)) << (e % kInWord * kBits);
    }
  }
  return piece;
}

// Keys (or values) of one block into `tile`, element type T as in memory (u16, or u8 for fp8); n >= count stays zero.
// All threads of the block call it; kDim is the padded head dim, `dim` the real one.
template <class T, int kDim, int kThreads>
REGARD_DEVICE void CopyBlock(Shared<T> tile, int pitch, const Rows& rows, bool in_pieces, int dim, int head,
                             const PlaceTables& places, const BlockPlace& common, int block, int count) {
  constexpr int kElements = 16 / sizeof(T), kPieces = kDim / kElements, kTotal = kBlockKeys * kPieces;
  static_assert(kDim % kElements == 0);
  REGARD_ROLLED  // its addresses would cost registers that the sums of a tile need
  for (int start = 0; start < kTotal; start += kThreads) {
    const int at = start + ThreadIndex();
    if (kTotal % kThreads != 0 && at >= kTotal) break;
    const int n = at / kPieces, first = at % kPieces * kElements;
    const Place place = places.Of(common, block, n);
    const bool valid = n < count && place.page >= 0 && first < dim;
    const i64 offset = OffsetOf(rows, place, head);
    if (in_pieces) {
      CopyAsync16(tile, n * pitch + first, Global<const T>(static_cast<const T*>(rows.data)),
                  valid ? offset + first : 0, valid);
    } else {
      tile.Store16(n * pitch + first, valid ? GatherPiece<T>(rows.data, offset, first, dim) : Vec16{{0, 0, 0, 0}});
    }
  }
}

// Two fp8 values as a pair of operands.
template <Element kType>
REGARD_DEVICE u32 OperandsOfFp8(u16 pair, Element from) {
  const u32 halves = from == Element::kE4M3 ? HalvesOfE4M3(pair) : HalvesOfE5M2(pair);
  if constexpr (kType == Element::kF16) return halves;
  return PackBF16(Wide(F16{static_cast<u16>(halves & 0xffff)}), Wide(F16{static_cast<u16>(halves >> 16)}));
}

// A piece of 16 fp8 values as two pieces of operands.
template <Element kType>
REGARD_DEVICE void ExpandPiece(const Vec16& bytes, Element from, Vec16& low, Vec16& high) {
  REGARD_UNROLL
  for (int w = 0; w < 4; ++w) {
    Vec16& half = w < 2 ? low : high;
    half.word[w % 2 * 2] = OperandsOfFp8<kType>(static_cast<u16>(bytes.word[w] & 0xffff), from);
    half.word[w % 2 * 2 + 1] = OperandsOfFp8<kType>(static_cast<u16>(bytes.word[w] >> 16), from);
  }
}

// A block that came as fp8 bytes into a tile of operands.
template <Element kType, int kDim, int kThreads>
REGARD_DEVICE void ExpandBlock(Shared<u8> raw, int raw_pitch, Shared<u16> tile, int pitch, Element from) {
  constexpr int kPieces = kDim / 16, kTotal = kBlockKeys * kPieces;
  for (int at = ThreadIndex(); at < kTotal; at += kThreads) {
    const int n = at / kPieces, first = at % kPieces * 16;
    Vec16 low, high;
    ExpandPiece<kType>(raw.Load16(n * raw_pitch + first), from, low, high);
    tile.Store16(n * pitch + first, low);
    tile.Store16(n * pitch + first + 8, high);
  }
}

// Query rows into `tile`: row r is (position, head of the group) = (r0 + r) / group, % group; zero where unused.
template <TensorConfig C>
REGARD_DEVICE void LoadQueries(Shared<u16> tile, const ForwardParams& p, const Sequence& s, int kv_head, i64 r0) {
  constexpr int kDim = C.head_dim, kPieces = kDim / 8, kPitch = TensorLayout::Pitch(kDim);
  const int group = p.shape.group, dim = p.shape.head_dim;
  const bool in_pieces = !C.fp8_q && InPieces(p.q, 2, dim);
  for (int at = ThreadIndex(); at < C.TileRows() * kPieces; at += C.Threads()) {
    const int r = at / kPieces, first = at % kPieces * 8;
    const i64 row = r0 + r, i = row / group;
    const int head = kv_head * group + static_cast<int>(row - i * group);
    const i64 offset = QueryOffset(p.shape, s, p.q, i, head);
    Vec16 piece{{0, 0, 0, 0}};
    if (i < s.seq_q && first < dim) {
      if constexpr (C.fp8_q) {
        Vec16 unused;
        Vec16 bytes = GatherPiece<u8>(p.q.data, offset, first, Min(dim, first + 8));
        ExpandPiece<C.type>(bytes, p.q_type, piece, unused);
      } else if (in_pieces) {
        piece = Global<const u16>(static_cast<const u16*>(p.q.data)).Load16(offset + first);
      } else {
        piece = GatherPiece<u16>(p.q.data, offset, first, dim);
      }
    }
    tile.Store16(r * kPitch + first, piece);
  }
}

}  // namespace regard::cuda::sm80
