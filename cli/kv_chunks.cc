#include "cli/kv_chunks.h"

#include <algorithm>

#include "src/problem/extent.h"

namespace regard::cli {
namespace {

// Keys that some query of the sequence sees; ranges never move back with i, so the first and the last row bound them.
KeyRange SeenKeys(const Problem& p, const Sequence& s) {
  if (s.seq_q == 0) return {};
  return {VisibleKeys(p.options, s, 0).begin, VisibleKeys(p.options, s, s.seq_q - 1).end};
}

class Collector {
 public:
  Collector(const Problem& p, const AttentionArgs& args) : p_(p), args_(args) {}

  // Keys [begin, end) of one sequence in `kv`, cut where its tokens stop lying one token stride apart.
  void Add(const Sequence& s, const TensorView& kv, std::int64_t dim, std::int64_t begin, std::int64_t end) {
    const std::int64_t heads = p_.heads_kv, head_stride = KvHeadStride(p_, kv);
    const auto size = static_cast<std::int64_t>(SizeOf(kv.dtype));
    const auto* base = static_cast<const std::byte*>(kv.data);
    while (begin < end) {
      const std::int64_t first = KvTokenOffset(p_, args_, s, kv, begin);
      std::int64_t n = 1, token_stride = 0;
      if (begin + 1 < end) token_stride = KvTokenOffset(p_, args_, s, kv, begin + 1) - first;
      while (begin + n < end && KvTokenOffset(p_, args_, s, kv, begin + n) == first + n * token_stride) ++n;
      const bool token_rows = head_stride == dim || heads == 1;  // all heads of a token lie together
      const std::int64_t row = token_rows ? heads * dim : dim;
      const bool joined = token_stride == row;
      for (std::int64_t h = 0; h < (token_rows ? 1 : heads); ++h) {
        for (std::int64_t t = 0; t < (joined ? 1 : n); ++t) {
          const std::int64_t at = first + h * head_stride + t * token_stride;
          const std::int64_t elements = joined ? n * row : row;
          chunks.push_back({base + at * size, static_cast<std::size_t>(elements * size)});
        }
      }
      begin += n;
    }
  }

  std::vector<probe::Chunk> chunks;

 private:
  const Problem& p_;
  const AttentionArgs& args_;
};

}  // namespace

std::vector<probe::Chunk> ChunksInOrder(const Problem& p, const AttentionArgs& args,
                                        const std::vector<Sequence>& sequences, std::int64_t block_tokens) {
  Collector collector(p, args);
  for (const Sequence& s : sequences) {
    const KeyRange seen = SeenKeys(p, s);
    for (std::int64_t begin = seen.begin; begin < seen.end;) {
      const std::int64_t end = std::min(seen.end, (begin / block_tokens + 1) * block_tokens);
      collector.Add(s, args.k, p.head_dim, begin, end);
      collector.Add(s, args.v, p.head_dim_v, begin, end);
      begin = end;
    }
  }
  return std::move(collector.chunks);
}

std::vector<probe::Chunk> JoinedByAddress(std::vector<probe::Chunk> chunks) {
  std::sort(chunks.begin(), chunks.end(), [](const auto& a, const auto& b) { return a.data < b.data; });
  std::vector<probe::Chunk> joined;
  for (const probe::Chunk& chunk : chunks) {
    if (!joined.empty() && joined.back().data + joined.back().bytes == chunk.data) {
      joined.back().bytes += chunk.bytes;
    } else {
      joined.push_back(chunk);
    }
  }
  return joined;
}

double TotalBytes(const std::vector<probe::Chunk>& chunks) {
  double bytes = 0;
  for (const probe::Chunk& chunk : chunks) bytes += static_cast<double>(chunk.bytes);
  return bytes;
}

}  // namespace regard::cli
