// The stages of shared memory through which blocks of keys and values pass, and the order of their copies.
//
// stages == 1: the values of a block are copied while its dot products run, the keys of the next block while its values
// are added. stages == 2: both of the next block are copied while this one is worked on. Either way two block barriers a
// block: before the first, the copy of the keys is awaited, and nobody reads what is overwritten next; the second stands
// before the values are read.
#pragma once

#include "sm80/rows.h"
#include "sm80/tiles.h"

namespace regard::cuda::sm80 {

template <TensorConfig C>
struct Stages {
  static constexpr TensorLayout kLayout{C};
  static constexpr int kPitchK = TensorLayout::Pitch(C.head_dim), kPitchV = TensorLayout::Pitch(C.head_dim_v);
  static constexpr int kRawK = TensorLayout::RawPitch(C.head_dim), kRawV = TensorLayout::RawPitch(C.head_dim_v);

  const ForwardParams& p;
  const Task& task;

  REGARD_DEVICE Stages(const ForwardParams& params, const Task& of) : p(params), task(of) {}

  REGARD_DEVICE static Shared<u16> Queries() { return Shared<u16>(kLayout.q); }
  REGARD_DEVICE static PlaceTables Places() { return PlaceTables(kLayout.places); }
  REGARD_DEVICE static Shared<u16> Keys(int stage) {
    return Shared<u16>(kLayout.k + (C.fp8_kv ? 0 : stage) * kBlockKeys * kPitchK * 2);
  }
  REGARD_DEVICE static Shared<u16> Values(int stage) {
    return Shared<u16>(kLayout.v + (C.fp8_kv ? 0 : stage) * kBlockKeys * kPitchV * 2);
  }
  REGARD_DEVICE static Shared<u8> RawKeys(int stage) { return Shared<u8>(kLayout.raw_k + stage * kBlockKeys * kRawK); }
  REGARD_DEVICE static Shared<u8> RawValues(int stage) { return Shared<u8>(kLayout.raw_v + stage * kBlockKeys * kRawV); }

  // Starts the copy of a block of keys (values), one group each.
  REGARD_DEVICE void CopyKeys(int block) const {
    const bool k_pieces = InPieces(p.cache.k, C.fp8_kv ? 1 : 2, p.shape.head_dim);
    const int stage = block % C.stages, count = task.s.seq_kv - task.s.leftpad - block * kBlockKeys;
    const BlockPlace common = Places().BlockOf(p.cache, task.s, block);
    if constexpr (C.fp8_kv) {
      CopyBlock<u8, C.head_dim, C.Threads()>(RawKeys(stage), kRawK, p.cache.k, k_pieces, p.shape.head_dim, task.kv_head,
                                             Places(), common, block, count);
    } else {
      CopyBlock<u16, C.head_dim, C.Threads()>(Keys(stage), kPitchK, p.cache.k, k_pieces, p.shape.head_dim,
                                              task.kv_head,
                                             Places(), common, block, count);
    }
    CopyAsyncCommit();
  }
  REGARD_DEVICE void CopyValues(int block) const {
    const bool v_pieces = InPieces(p.cache.v, C.fp8_kv ? 1 : 2, p.shape.head_dim_v);
    const int stage = block % C.stages, count = task.s.seq_kv - task.s.leftpad - block * kBlockKeys;
    const BlockPlace common = Places().BlockOf(p.cache, task.s, block);
    if constexpr (C.fp8_kv) {
      CopyBlock<u8, C.head_dim_v, C.Threads()>(RawValues(stage), kRawV, p.cache.v, v_pieces, p.shape.head_dim_v,
                                               task.kv_head,
                                             Places(), common, block, count);
    } else {
      CopyBlock<u16, C.head_dim_v, C.Threads()>(Values(stage), kPitchV, p.cache.v, v_pieces, p.shape.head_dim_v,
                                                task.kv_head,
                                             Places(), common, block, count);
    }
    CopyAsyncCommit();
  }

  // Before the first block.
  REGARD_DEVICE void Begin(int block) const {
    Places().Fill(p.cache, task.s, block);
    if (p.cache.paged) BlockBarrier();
    CopyKeys(block);
    if constexpr (C.stages == 2) CopyValues(block);
  }

  // A block whose keys have come.
  struct Block {
    Shared<u16> keys;
    i32 first;         // its first key, j'
    u32 bad[2];        // keys on pages that do not exist (tile/kv_gather.h)
    bool whole;        // every row of the tile sees every key of it

    REGARD_DEVICE bool AnyBad() const { return (bad[0] | bad[1]) != 0; }
  };

  // Awaits the keys of a block, and starts what may be copied while they are worked on. `more`: another block follows.
  REGARD_DEVICE Block AwaitKeys(int block, bool more) const {
    if (more) Places().Fill(p.cache, task.s, block + 1);
    CopyAsyncWait<C.stages == 2 ? 1 : 0>();
    BlockBarrier();
    if constexpr (C.stages == 1) {
      CopyValues(block);
    } else if (more) {
      CopyKeys(block + 1);
      CopyValues(block + 1);
    }
    const int stage = block % C.stages;
    if constexpr (C.fp8_kv) {
      ExpandBlock<C.type, C.head_dim, C.Threads()>(RawKeys(stage), kRawK, Keys(stage), kPitchK, p.kv_type);
      BlockBarrier();
    }
    const BlockPlace common = Places().BlockOf(p.cache, task.s, block);
    const i32 first = block * kBlockKeys;
    const bool inside = first >= task.all.begin && first + kBlockKeys <= task.all.end;
    return {Keys(stage), first, {common.bad[0], common.bad[1]}, inside && !common.AnyBad()};
  }

  // Awaits its values; the keys of the block are not read any more.
  REGARD_DEVICE Shared<u16> AwaitValues(int block, bool more) const {
    if (C.stages == 2 && more) {
      CopyAsyncWait<2>();
    } else {
      CopyAsyncWait<0>();
    }
    BlockBarrier();
    if constexpr (C.stages == 1) {
      if (more) CopyKeys(block + 1);
    }
    const int stage = block % C.stages;
    if constexpr (C.fp8_kv) {
      ExpandBlock<C.type, C.head_dim_v, C.Threads()>(RawValues(stage), kRawV, Values(stage), kPitchV, p.kv_type);
      BlockBarrier();
    }
    return Values(stage);
  }
};

}  // namespace regard::cuda::sm80
