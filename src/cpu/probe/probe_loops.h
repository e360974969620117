// The probe loops over a register type V. Included by probe_<isa>.cc alone, each with a V in its anonymous namespace,
// so that every instantiation is local to its object (a weak AVX-512 copy must not win the link).
//
// V has:  Reg                       a register of f32 lanes
//         kLanes, kChains           independent chains: at least pipes x latency, and registers enough to hold them
//         static Reg Set(float)
//         static Reg MulAdd(Reg acc, Reg a, Reg b)
//         Bits                      a register of raw bytes
//         static Bits Zero()
//         static Bits XorLoad(Bits, const std::byte*)     unaligned load
//         static std::uint64_t Fold(Bits)                 XOR of its 8-byte words
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "src/cpu/probe/probe.h"

namespace regard::probe {

// Keeps a register's value from the optimizer: it can neither fold nor drop what made it.
#if defined(__x86_64__)
#define REGARD_PROBE_KEEP(reg) asm volatile("" : "+v"(reg))
#elif defined(__aarch64__)
#define REGARD_PROBE_KEEP(reg) asm volatile("" : "+w"(reg))
#else
#define REGARD_PROBE_KEEP(reg) asm volatile("" : "+m"(reg))
#endif

// n chains of V::Reg, as separate members (not an array), which stay in registers.
template <class V, std::size_t I>
struct Chain {
  typename V::Reg acc;
};
template <class V, class Index>
struct ChainPack;
template <class V, std::size_t... I>
struct ChainPack<V, std::index_sequence<I...>> : Chain<V, I>... {
  explicit ChainPack(const typename V::Reg& start) : Chain<V, I>{start}... {}
  // acc = op(acc) for every chain.
  template <class Op>
  void Round(Op op) {
    ((static_cast<Chain<V, I>*>(this)->acc = op(static_cast<Chain<V, I>*>(this)->acc)), ...);
  }
  void Keep() {
    Round([](typename V::Reg r) {
      REGARD_PROBE_KEEP(r);
      return r;
    });
  }
};
template <class V, int n>
using Chains = ChainPack<V, std::make_index_sequence<n>>;

// acc = acc * a + b with a + b = 1 stays near 1: no denormals, no overflow, bits that change.
template <class V>
double FmaLoop(std::int64_t steps) {
  constexpr int kUnroll = 4;
  Chains<V, V::kChains> chains(V::Set(0.75f));
  typename V::Reg a = V::Set(0.9375f), b = V::Set(0.0625f);
  REGARD_PROBE_KEEP(a);
  REGARD_PROBE_KEEP(b);
  for (std::int64_t step = 0; step < steps; ++step) {
    for (int u = 0; u < kUnroll; ++u) chains.Round([&](typename V::Reg acc) { return V::MulAdd(acc, a, b); });
    chains.Keep();
  }
  return static_cast<double>(steps) * kUnroll * V::kChains * V::kLanes * 2;
}

inline constexpr std::size_t kLine = 64;

// 64 bytes into the accumulator; no branch, any alignment.
template <class V>
inline typename V::Bits XorLine(typename V::Bits acc, const std::byte* p) {
  constexpr std::size_t kStep = sizeof(typename V::Bits);
  for (std::size_t at = 0; at < kLine; at += kStep) acc = V::XorLoad(acc, p + at);
  return acc;
}

// The last, shorter part of a chunk.
static inline std::uint64_t XorTail(const std::byte* p, std::size_t bytes) {
  std::uint64_t sum = 0;
  while (bytes > 0) {
    std::uint64_t word = 0;
    const std::size_t take = bytes < sizeof word ? bytes : sizeof word;
    std::memcpy(&word, p, take);
    sum ^= word;
    p += take;
    bytes -= take;
  }
  return sum;
}

// The level that software prefetches go to, as a constant of each loop.
enum class Into { kNone, kL1, kL2 };

template <Into into>
static inline void PrefetchLine(const std::byte* p) {
  if constexpr (into == Into::kL1) __builtin_prefetch(p, 0, 3);
  if constexpr (into == Into::kL2) __builtin_prefetch(p, 0, 2);
}

// Streams of equal length side by side, two lines of each a turn. Prefetches may pass the chunk's end: they never
// fault.
template <class V, int kStreams, Into into>
std::uint64_t ReadStreams(Chunk chunk, std::size_t lead) {
  const std::size_t lines = chunk.bytes / (kLine * kStreams);  // of one stream
  const std::size_t stream_bytes = lines * kLine;
  typename V::Bits even = V::Zero(), odd = V::Zero();
  std::size_t line = 0;
  for (; line + 2 <= lines; line += 2) {
    for (int s = 0; s < kStreams; ++s) {
      const std::byte* p = chunk.data + s * stream_bytes + line * kLine;
      PrefetchLine<into>(p + lead);
      PrefetchLine<into>(p + lead + kLine);
      even = XorLine<V>(even, p);
      odd = XorLine<V>(odd, p + kLine);
    }
  }
  for (; line < lines; ++line) {
    for (int s = 0; s < kStreams; ++s) even = XorLine<V>(even, chunk.data + s * stream_bytes + line * kLine);
  }
  const std::size_t done = stream_bytes * kStreams;
  return V::Fold(even) ^ V::Fold(odd) ^ XorTail(chunk.data + done, chunk.bytes - done);
}

template <class V, int kStreams>
std::uint64_t ReadStreamsInto(Chunk chunk, Prefetch prefetch) {
  if (prefetch.lead_bytes == 0) return ReadStreams<V, kStreams, Into::kNone>(chunk, 0);
  return prefetch.into_l2 ? ReadStreams<V, kStreams, Into::kL2>(chunk, prefetch.lead_bytes)
                          : ReadStreams<V, kStreams, Into::kL1>(chunk, prefetch.lead_bytes);
}

template <class V>
std::uint64_t ReadStreamsLoop(Chunk chunk, int streams, Prefetch prefetch) {
  switch (streams) {
    case 2:
      return ReadStreamsInto<V, 2>(chunk, prefetch);
    case 4:
      return ReadStreamsInto<V, 4>(chunk, prefetch);
    case 8:
      return ReadStreamsInto<V, 8>(chunk, prefetch);
    case 16:
      return ReadStreamsInto<V, 16>(chunk, prefetch);
    default:
      return ReadStreamsInto<V, 1>(chunk, prefetch);
  }
}

// Walks the lines of chunks one after another and prefetches one a call. Chunks are not empty.
template <class V, Into into>
struct PrefetchCursor {
  const Chunk *chunk, *end;
  std::size_t at = 0;
  void Next() {
    if (into == Into::kNone || chunk == end) return;
    PrefetchLine<into>(chunk->data + at);
    at += kLine;
    if (at < chunk->bytes) return;
    ++chunk;
    at = 0;
  }
};

// What is left of a chunk from `at`: whole lines, then the tail, which goes into `tails`.
template <class V, class Cursor>
typename V::Bits ReadRest(const Chunk& chunk, std::size_t at, Cursor& ahead, typename V::Bits acc,
                          std::uint64_t* tails) {
  for (; at + kLine <= chunk.bytes; at += kLine) {
    ahead.Next();
    acc = XorLine<V>(acc, chunk.data + at);
  }
  if (at < chunk.bytes) {
    ahead.Next();
    *tails ^= XorTail(chunk.data + at, chunk.bytes - at);
  }
  return acc;
}

template <class V, Into into>
std::uint64_t ReadChunks(const Chunk* chunks, std::size_t count, std::size_t lead) {
  PrefetchCursor<V, into> ahead{chunks, chunks + count};
  for (std::size_t at = 0; at < lead; at += kLine) ahead.Next();
  typename V::Bits acc = V::Zero();
  std::uint64_t tails = 0;
  for (std::size_t c = 0; c < count; ++c) acc = ReadRest<V>(chunks[c], 0, ahead, acc, &tails);
  return V::Fold(acc) ^ tails;
}

// Bytes that all of `count` chunks have in whole lines.
static inline std::size_t CommonBytes(const Chunk* chunks, std::size_t count) {
  std::size_t bytes = chunks[0].bytes;
  for (std::size_t c = 1; c < count; ++c) bytes = chunks[c].bytes < bytes ? chunks[c].bytes : bytes;
  return bytes / kLine * kLine;
}

// Groups of `group` chunks, a line of each in turn. by_rows: the cursor runs groups_ahead groups ahead and prefetches
// chunk after chunk. Else each line prefetches the one in its place in the group groups_ahead later.
template <class V, bool by_rows>
std::uint64_t ReadGroups(const Chunk* chunks, std::size_t count, std::size_t group, std::size_t groups_ahead) {
  const std::size_t lead = groups_ahead * group;
  PrefetchCursor<V, by_rows ? Into::kL2 : Into::kNone> cursor{chunks, chunks + count};
  if (by_rows) {
    const Chunk* const first = chunks + (lead < count ? lead : count);
    while (cursor.chunk != first) cursor.Next();
  }
  typename V::Bits acc = V::Zero();
  std::uint64_t tails = 0;
  for (std::size_t begin = 0; begin < count; begin += group) {
    const Chunk* const now = chunks + begin;
    const std::size_t n = group < count - begin ? group : count - begin;
    const Chunk* later = now;
    std::size_t prefetched = 0;
    const std::size_t common = CommonBytes(now, n);
    if (!by_rows && lead > 0 && begin + lead + n <= count) {
      later = now + lead;
      prefetched = CommonBytes(later, n);
    }
    const std::size_t both = prefetched < common ? prefetched : common;
    std::size_t at = 0;
    for (; at < both; at += kLine) {
      for (std::size_t c = 0; c < n; ++c) {
        PrefetchLine<Into::kL2>(later[c].data + at);
        acc = XorLine<V>(acc, now[c].data + at);
      }
    }
    for (; at < common; at += kLine) {
      for (std::size_t c = 0; c < n; ++c) {
        cursor.Next();
        acc = XorLine<V>(acc, now[c].data + at);
      }
    }
    for (std::size_t c = 0; c < n; ++c) acc = ReadRest<V>(now[c], at, cursor, acc, &tails);
  }
  return V::Fold(acc) ^ tails;
}

template <class V>
std::uint64_t ReadChunksLoop(const Chunk* chunks, std::size_t count, ChunkWalk walk) {
  if (walk.group > 1) {
    const auto group = static_cast<std::size_t>(walk.group), ahead = static_cast<std::size_t>(walk.groups_ahead);
    return walk.by_rows && ahead > 0 ? ReadGroups<V, true>(chunks, count, group, ahead)
                                     : ReadGroups<V, false>(chunks, count, group, ahead);
  }
  const Prefetch prefetch = walk.prefetch;
  if (prefetch.lead_bytes == 0) return ReadChunks<V, Into::kNone>(chunks, count, 0);
  return prefetch.into_l2 ? ReadChunks<V, Into::kL2>(chunks, count, prefetch.lead_bytes)
                          : ReadChunks<V, Into::kL1>(chunks, count, prefetch.lead_bytes);
}

}  // namespace regard::probe
