// Gradients on CUDA cores, any types and head dims, every option, in f32. Probabilities come from the stored lse:
//   P = exp(s - lse), dP = keep * (dout . v), dS = P (dP - delta), delta = rowsum(dout * out) - dlse,
//   dq = scale sum_j dS' k_j, dk = scale sum dS' q, dv = sum keep P dout, dS' = dS (1 - tanh^2) with softcap.
// (FlashAttention-2, algorithm 2, with each sum in one place.) Four kernels, none with atomics, so that a gradient's bits
// depend on nothing but its operands: DeltaKernel first, then in any order QueryGradientKernel (a warp a query row and
// head, keys in order), KeyGradientKernel (a warp a key and kv head; heads of the group, then queries, in order) and
// BiasGradientKernel (a thread an element of bias, or a sink).
//
// A warp spreads a row's dims over its lanes, 32 apart; a dot product is summed by lane, then by a tree.
#pragma once

#include "base/kernel.h"
#include "ptx/shuffle.h"
#include "tile/dropout.h"
#include "tile/score.h"
#include "tile/visible.h"

namespace regard::cuda::generic {

inline constexpr int kBackwardThreads = 128;
inline constexpr int kBackwardWarps = kBackwardThreads / 32;

// A row of dims over the lanes of a warp.
template <int kDims>
struct LaneRow {
  static constexpr int kCount = kDims / 32;
  float x[kCount];

  REGARD_DEVICE void Load(const void* data, Element type, i64 offset, int dim) {
    REGARD_UNROLL
    for (int n = 0; n < kCount; ++n) {
      const int d = n * 32 + Lane();
      x[n] = d < dim ? LoadElement(data, type, offset + d) : 0.0f;
    }
  }
  REGARD_DEVICE void Clear() {
    REGARD_UNROLL
    for (int n = 0; n < kCount; ++n) x[n] = 0;
  }
  REGARD_DEVICE void Add(float factor, const LaneRow& row) {
    REGARD_UNROLL
    for (int n = 0; n < kCount; ++n) x[n] = Fma(factor, row.x[n], x[n]);
  }
  REGARD_DEVICE void Store(void* data, Element type, i64 offset, int dim, float factor) const {
    REGARD_UNROLL
    for (int n = 0; n < kCount; ++n) {
      const int d = n * 32 + Lane();
      if (d < dim) StoreElement(data, type, offset + d, x[n] * factor);
    }
  }
  // The same in every lane.
  REGARD_DEVICE float Dot(const LaneRow& row) const {
    float sum = 0;
    REGARD_UNROLL
    for (int n = 0; n < kCount; ++n) sum = Fma(x[n], row.x[n], sum);
    for (int lanes = 1; lanes < 32; lanes *= 2) sum += ShuffleXor(sum, lanes);
    return sum;
  }
};

// Where rows of a call lie.
REGARD_DEVICE i64 KeyOffset(const BackwardParams& p, const Sequence& s, const Rows& rows, i64 j, int head) {
  return (p.packed_kv ? (s.kv_row + j) * rows.row : s.b * rows.batch + j * rows.row) + head * rows.head;
}
REGARD_DEVICE i64 StatOffset(const BackwardParams& p, const Sequence& s, i64 i, int head, i64 batch, i64 head_stride) {
  return (p.shape.packed_q ? s.q_row + i : s.b * batch + i) + head * head_stride;
}

// delta lies dense, whatever lse's strides are: (b, head, row) of the plan's bounds.
REGARD_DEVICE i64 DeltaOffset(const BackwardParams& p, const Sequence& s, i64 i, i64 head) {
  return (static_cast<i64>(s.b) * p.shape.heads_q + head) * p.shape.seq_q + i;
}

// Keys of a call without a cache, as the sequences' checks want them.
REGARD_DEVICE Cache KeysOf(const BackwardParams& p) {
  Cache cache;
  cache.k = p.k;
  cache.v = p.v;
  cache.packed = p.packed_kv;
  cache.kv_rows = p.shape.batch;
  cache.row_capacity = p.total_kv;
  cache.total_kv = p.total_kv;
  return cache;
}

// One pair of a query row and a key that it sees, from q . k and dout . v.
struct Pair {
  float weight = 0;   // keep P: meets dout
  float score = 0;    // dS: the bias's gradient
  float product = 0;  // dS': meets q and k
};

struct QueryStats {
  QueryRow row;
  float lse = 0, delta = 0;
  u32 position = 0;    // counted from leftpad, for dropout
  u32 dropout_row = 0;
};

REGARD_DEVICE QueryStats StatsOf(const BackwardParams& p, const Sequence& s, i64 i, int head) {
  QueryStats stats;
  stats.row = {s.b, head, i, i + s.q_offset, SlopeOf(p.options, s.b, head)};
  stats.lse = Global<const float>(p.lse).Load(StatOffset(p, s, i, head, p.lse_batch, p.lse_head));
  stats.delta = Global<const float>(p.delta).Load(DeltaOffset(p, s, i, head));
  stats.position = static_cast<u32>(stats.row.position - s.leftpad);
  stats.dropout_row = static_cast<u32>(s.b * p.shape.heads_q + head);
  return stats;
}

// Whether query row and key j (in the sequence, inside the row's interval) make a pair, and which.
REGARD_DEVICE bool PairOf(const BackwardParams& p, const Sequence& s, const QueryStats& q, i64 j, float query_key,
                          float dout_value, Pair& pair) {
  const Options& o = p.options;
  if (q.lse == -Infinity() || !MaskShows(o, q.row, j)) return false;
  const float score = Score(o, q.row, query_key, o.scale, j);
  if (score == -Infinity()) return false;
  const float probability = Exp2((score - q.lse) * kLog2E);
  float kept = 1;
  if (o.dropout != 0) {
    const u32 key = static_cast<u32>(j - s.leftpad);
    kept = KeepsKey(o, key, q.position, q.dropout_row) ? o.dropout_scale : 0.0f;
  }
  pair.weight = kept * probability;
  pair.score = probability * (kept * dout_value - q.delta);
  float slope = 1;
  if (o.softcap > 0) {
    const float t = Tanh(Divide(query_key * o.scale, o.softcap));
    slope = Fma(-t, t, 1.0f);
  }
  pair.product = pair.score * slope;
  return true;
}

// The interval of queries that may see key j' (counted from leftpad): intervals of keys move on with the query, so it is
// found by halving.
struct QueryRange {
  i64 begin = 0, end = 0;
};
REGARD_DEVICE QueryRange QueriesOf(const BackwardParams& p, const Sequence& s, i32 j) {
  const auto first = [&](auto&& holds) {  // the first query for which it holds; monotone
    i64 low = 0, high = s.seq_q;
    while (low < high) {
      const i64 middle = (low + high) / 2;
      if (holds(VisibleKeys(p.options, s, middle))) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  };
  return {first([&](KeyRange keys) { return keys.end > j; }), first([&](KeyRange keys) { return keys.begin > j; })};
}

// The warps of the grid share `count` pieces of work: visit(piece).
template <class Visit>
REGARD_DEVICE void ShareAmongWarps(i64 count, const Visit& visit) {
  const i64 warps = static_cast<i64>(GridX()) * kBackwardWarps;
  for (i64 at = static_cast<i64>(BlockX()) * kBackwardWarps + Warp(); at < count; at += warps) visit(at);
}

// visit(sequence, row, head) for each of `rows` rows (the plan's bound) and `heads` heads of the batch. Returns what the
// sequences' checks found.
template <class Visit>
REGARD_DEVICE u32 ForEachRow(const BackwardParams& p, i32 rows, i32 heads, const Visit& visit) {
  u32 error = 0;
  ShareAmongWarps(static_cast<i64>(p.shape.batch) * rows * heads, [&](i64 at) {
    const int b = static_cast<int>(at / heads / rows);
    visit(ResolveSequence(p.shape, KeysOf(p), b, error), at / heads % rows, static_cast<int>(at % heads));
  });
  return error;
}

// delta = rowsum(dout * out) - dlse; a warp a row and head of the batch.
template <int kDims>
REGARD_DEVICE void DeltaKernel(const BackwardParams& p) {
  const u32 error = ForEachRow(p, p.shape.seq_q, p.shape.heads_q, [&](const Sequence& s, i64 i, int head) {
    if (i >= s.seq_q) return;
    LaneRow<kDims> out, dout;
    out.Load(p.out.data, p.out_type, QueryOffset(p.shape, s, p.out, i, head), p.shape.head_dim_v);
    dout.Load(p.dout.data, p.dout_type, QueryOffset(p.shape, s, p.dout, i, head), p.shape.head_dim_v);
    float delta = dout.Dot(out);
    if (p.dlse != nullptr) {
      delta -= Global<const float>(p.dlse).Load(StatOffset(p, s, i, head, p.dlse_batch, p.dlse_head));
    }
    if (Lane() == 0) Global<float>(p.delta).Store(DeltaOffset(p, s, i, head), delta);
  });
  if (error != 0 && Lane() == 0 && p.shape.error != nullptr) AtomicOr(Global<u32>(p.shape.error), 0, error);
}

// Calls visit(pair, row of k) for each key of [first, last) that query i of a head makes a pair with, in order.
template <int kDims, int kDimsV, class Visit>
REGARD_DEVICE void ForEachPair(const BackwardParams& p, const Sequence& s, i64 i, int head, i64 first, i64 last,
                               const Visit& visit) {
  const QueryStats stats = StatsOf(p, s, i, head);
  const int kv_head = head / p.shape.group;
  LaneRow<kDims> q, k;
  LaneRow<kDimsV> dout, v;
  q.Load(p.q.data, p.type, QueryOffset(p.shape, s, p.q, i, head), p.shape.head_dim);
  dout.Load(p.dout.data, p.dout_type, QueryOffset(p.shape, s, p.dout, i, head), p.shape.head_dim_v);
  REGARD_ROLLED
  for (i64 j = first; j < last; ++j) {
    k.Load(p.k.data, p.type, KeyOffset(p, s, p.k, j, kv_head), p.shape.head_dim);
    v.Load(p.v.data, p.type, KeyOffset(p, s, p.v, j, kv_head), p.shape.head_dim_v);
    Pair pair;
    if (PairOf(p, s, stats, j, q.Dot(k), dout.Dot(v), pair)) visit(pair, k);
  }
}

// dq of a row and head, keys in order. Rows that are no query get 0, those behind the last sequence too.
template <int kDims, int kDimsV>
REGARD_DEVICE void QueryGradientKernel(const BackwardParams& p) {
  ForEachRow(p, p.shape.seq_q, p.shape.heads_q, [&](const Sequence& s, i64 i, int head) {
    if (i >= s.rows) return;
    LaneRow<kDims> sum;
    sum.Clear();
    if (i < s.seq_q) {
      const KeyRange keys = VisibleKeys(p.options, s, i);
      const i64 leftpad = s.leftpad;
      ForEachPair<kDims, kDimsV>(p, s, i, head, leftpad + keys.begin, leftpad + keys.end,
                                 [&](const Pair& pair, const LaneRow<kDims>& k) { sum.Add(pair.product, k); });
    }
    sum.Store(p.dq.data, p.grad_type, QueryOffset(p.shape, s, p.dq, i, head), p.shape.head_dim, p.options.scale);
  });
  if (!p.shape.packed_q) return;
  const i64 begin = EntryOf(p.shape.lengths.cu_seqlens_q, p.shape.batch);
  if (begin < 0 || begin > p.shape.total_q) return;
  LaneRow<kDims> zero;
  zero.Clear();
  ShareAmongWarps((p.shape.total_q - begin) * p.shape.heads_q, [&](i64 at) {
    const i64 offset = (begin + at / p.shape.heads_q) * p.dq.row + at % p.shape.heads_q * p.dq.head;
    zero.Store(p.dq.data, p.grad_type, offset, p.shape.head_dim, 1.0f);
  });
}

// dk and dv of a key and kv head. Keys that are none (past the used ones, left padding) get 0.
template <int kDims, int kDimsV>
REGARD_DEVICE void KeyGradientKernel(const BackwardParams& p) {
  ForEachRow(p, p.shape.seq_kv, p.shape.heads_kv, [&](const Sequence& s, i64 j, int kv_head) {
    if (j >= s.owned_kv) return;
    LaneRow<kDims> sum_k;
    LaneRow<kDimsV> sum_v;
    sum_k.Clear();
    sum_v.Clear();
    if (j >= s.leftpad && j < s.seq_kv) {
      LaneRow<kDims> k, q;
      LaneRow<kDimsV> v, dout;
      k.Load(p.k.data, p.type, KeyOffset(p, s, p.k, j, kv_head), p.shape.head_dim);
      v.Load(p.v.data, p.type, KeyOffset(p, s, p.v, j, kv_head), p.shape.head_dim_v);
      const QueryRange queries = QueriesOf(p, s, static_cast<i32>(j - s.leftpad));
      for (int head = kv_head * p.shape.group; head < (kv_head + 1) * p.shape.group; ++head) {
        REGARD_ROLLED
        for (i64 i = queries.begin; i < queries.end; ++i) {
          q.Load(p.q.data, p.type, QueryOffset(p.shape, s, p.q, i, head), p.shape.head_dim);
          dout.Load(p.dout.data, p.dout_type, QueryOffset(p.shape, s, p.dout, i, head), p.shape.head_dim_v);
          Pair pair;
          if (!PairOf(p, s, StatsOf(p, s, i, head), j, q.Dot(k), dout.Dot(v), pair)) continue;
          sum_k.Add(pair.product, q);
          sum_v.Add(pair.weight, dout);
        }
      }
    }
    sum_k.Store(p.dk.data, p.grad_type, KeyOffset(p, s, p.dk, j, kv_head), p.shape.head_dim, p.options.scale);
    sum_v.Store(p.dv.data, p.grad_type, KeyOffset(p, s, p.dv, j, kv_head), p.shape.head_dim_v, 1.0f);
  });
  if (!p.packed_kv) return;
  const i64 begin = EntryOf(p.shape.lengths.cu_seqlens_kv, p.shape.batch);
  if (begin < 0 || begin > p.total_kv) return;
  LaneRow<kDims> zero_k;
  LaneRow<kDimsV> zero_v;
  zero_k.Clear();
  zero_v.Clear();
  ShareAmongWarps((p.total_kv - begin) * p.shape.heads_kv, [&](i64 at) {
    const i64 row = begin + at / p.shape.heads_kv, head = at % p.shape.heads_kv;
    zero_k.Store(p.dk.data, p.grad_type, row * p.dk.row + head * p.dk.head, p.shape.head_dim, 1.0f);
    zero_v.Store(p.dv.data, p.grad_type, row * p.dv.row + head * p.dv.head, p.shape.head_dim_v, 1.0f);
  });
}

// One element of dbias: the sum of dS over all (b, h, i, j) that it stands for, in that order. A warp an element.
template <int kDims, int kDimsV>
REGARD_DEVICE void BiasGradientKernel(const BackwardParams& p) {
  const Map& m = p.dbias;
  const i64 count = static_cast<i64>(m.extent[0]) * m.extent[1] * m.extent[2] * m.extent[3];
  u32 error = 0;
  ShareAmongWarps(count, [&](i64 at) {
    i64 index[4], rest = at, offset = 0;
    for (int d = 3; d >= 0; --d) {
      index[d] = rest % m.extent[d];
      rest /= m.extent[d];
      offset += index[d] * m.stride[d];
    }
    const auto begin = [&](int d) { return m.extent[d] == 1 ? static_cast<i64>(0) : index[d]; };
    const auto end = [&](int d, i64 all) { return m.extent[d] == 1 ? all : Min(index[d] + 1, all); };
    float sum = 0;
    for (i64 b = begin(0); b < end(0, p.shape.batch); ++b) {
      const Sequence s = ResolveSequence(p.shape, KeysOf(p), static_cast<int>(b), error);
      for (i64 h = begin(1); h < end(1, p.shape.heads_q); ++h) {
        for (i64 i = begin(2); i < end(2, s.seq_q); ++i) {
          const KeyRange keys = VisibleKeys(p.options, s, i);
          const i64 first = Max(begin(3), static_cast<i64>(keys.begin) + s.leftpad);
          const i64 last = Min(end(3, s.seq_kv), static_cast<i64>(keys.end) + s.leftpad);
          ForEachPair<kDims, kDimsV>(p, s, i, static_cast<int>(h), first, last,
                                     [&](const Pair& pair, const LaneRow<kDims>&) { sum += pair.score; });
        }
      }
    }
    if (Lane() == 0) StoreElement(const_cast<void*>(m.data), p.dbias_type, offset, sum);
  });
}

// dsink[h] = sum over the queries of exp(sink - lse) (dlse - rowsum(dout * out)). A warp a head; lanes take queries 32
// apart, then a tree.
REGARD_DEVICE void SinkGradientKernel(const BackwardParams& p) {
  u32 error = 0;
  const i64 head = static_cast<i64>(BlockX()) * kBackwardWarps + Warp();
  if (head >= p.shape.heads_q) return;
  const float sink = LoadElement(p.options.sink, p.options.sink_type, head);
  float sum = 0;
  for (int b = 0; b < p.shape.batch; ++b) {
    const Sequence s = ResolveSequence(p.shape, KeysOf(p), b, error);
    for (i64 i = Lane(); i < s.seq_q; i += 32) {
      const float lse =
          Global<const float>(p.lse).Load(StatOffset(p, s, i, static_cast<int>(head), p.lse_batch, p.lse_head));
      if (lse == -Infinity()) continue;
      sum = Fma(-Exp2((sink - lse) * kLog2E), Global<const float>(p.delta).Load(DeltaOffset(p, s, i, head)), sum);
    }
  }
  for (int lanes = 1; lanes < 32; lanes *= 2) sum += ShuffleXor(sum, lanes);
  if (Lane() == 0) Global<float>(p.dsink).Store(head, sum);
}

}  // namespace regard::cuda::generic
