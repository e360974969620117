// A backward task at work: who its queries are, and queries and keys packed for the five products (gradient_tiles.h).
#pragma once

#include "src/cpu/backward_params.h"
#include "src/cpu/tile/gradient_tiles.h"
#include "src/cpu/tile/pack.h"
#include "src/cpu/tile/softmax.h"

namespace regard::cpu::REGARD_ISA {

static int64_t GradColumns(int head_dim) { return RoundUp(head_dim, kPanelKeys); }

static_assert(kGradQueries % kGradBlock == 0 && kGradKeys % kGradBlock == 0);
inline constexpr int kQueryTiles = kGradQueries / kGradRows;

// Floats of each part of a worker's scratch.
template <class M>
struct BackwardScratch {
  int steps, steps_v;                  // of the dot products q k and dO v
  int columns, columns_v;
  int64_t q_rows, q_columns, do_rows, do_columns;  // packed queries: tiles [step][row], panels [row step][column]
  int64_t k_panels, v_panels, k_columns;           // packed keys: panels [step][key] twice, panels [key step][column]
  int64_t dq, scores, ds, row_p, row_ds, slope, factor, zeros, rounded, touched, dk, dv, total;
  explicit BackwardScratch(const BackwardParams& params) {
    const ForwardParams& p = params.f;
    steps = Steps<M>(p.head_dim);
    steps_v = Steps<M>(p.head_dim_v);
    columns = RoundUp(p.head_dim, kPanelKeys);
    columns_v = RoundUp(p.head_dim_v, kPanelKeys);
    q_rows = RoundUp(static_cast<int64_t>(kGradQueries) * steps + kLanes, 16);
    do_rows = RoundUp(static_cast<int64_t>(kGradQueries) * steps_v + kLanes, 16);
    q_columns = static_cast<int64_t>(kGradQueries) / M::kPack * columns;
    do_columns = static_cast<int64_t>(kGradQueries) / M::kPack * columns_v;
    k_panels = static_cast<int64_t>(kGradKeys) * RoundUp(steps, kLanes);
    v_panels = static_cast<int64_t>(kGradKeys) * RoundUp(steps_v, kLanes);
    k_columns = static_cast<int64_t>(kGradKeys) / M::kPack * columns;
    dq = static_cast<int64_t>(kGradQueries) * columns;
    scores = static_cast<int64_t>(kGradBlock) * kGradStride;
    ds = M::kPack == 1 ? 0 : static_cast<int64_t>(kGradBlock) * kKeyStride<M>;
    row_p = M::kPack == 1 ? 0 : scores / M::kPack;
    row_ds = scores / M::kPack;
    slope = p.softcap > 0 ? scores : 0;
    factor = p.drops ? scores : 0;
    zeros = RoundUp(Max(p.head_dim, p.head_dim_v) + kLanes, 16);
    rounded = M::kPack == 2 && params.dout_type == Elem::kF32 ? kGradQueries / 2 * RoundUp(p.head_dim_v, kLanes) : 0;
    const int64_t keys = (params.max_keys + kGradBlock - 1) / kGradBlock * kGradBlock;
    touched = RoundUp(keys / kPanelKeys + 1, 64) / 4;
    dk = p.group > 1 ? keys * columns : 0;
    dv = p.group > 1 ? keys * columns_v : 0;
    total = q_rows + q_columns + do_rows + do_columns + k_panels + v_panels + k_columns + dq + scores + ds + row_p +
            row_ds + slope + factor + zeros + rounded + touched + dk + dv;
  }
};

// One query head at work.
template <class M>
struct BackwardRun {
  const BackwardParams& p;
  const ForwardParams& f;
  const Seq& s;
  const BackwardScratch<M> size;
  const Scaling scaling;
  const int64_t b, head_kv;
  int64_t head;
  float *q_rows, *q_columns, *do_rows, *do_columns, *k_panels, *v_panels, *k_columns, *dq, *zeros, *rounded;
  GradBlock block;
  // Of the head at hand: its sums, key by key; which panels of keys have met a query.
  float *dk, *dv;
  uint8_t* touched;
  // Of the queries that are packed.
  int64_t first_query;
  int queries;
  Row info[kGradQueries];
  PhaseClock clock;
  alignas(64) float lse[kGradQueries];    // -log2(e) * lse; 0 for an empty row
  alignas(64) float delta[kGradQueries];  // rowsum(dO * O) - dlse
  struct Tile {
    int64_t lo, hi, all_lo, all_hi;       // keys that some row sees, that every row sees
    bool touched;                         // dq holds something
  } tiles[kQueryTiles];
  int64_t lo, hi;
  // Of the keys that are packed, j' from first_key on.
  int64_t first_key, keys;
  bool finite_queries, finite_keys;       // no NaN or infinity among what is packed
  double dsink;
  int64_t k_offsets[kGradKeys], v_offsets[kGradKeys];

  BackwardRun(const BackwardParams& params, const GradTask& task)
      : p(params), f(params.f), s(params.f.seqs[task.b]), size(params), scaling(ScalingOf(params.f, task.b, task.head_kv)),
        b(task.b), head_kv(task.head_kv), clock(params.f.phase_ticks) {}
};

// sum over c of a[c] * b[c] in f32: lane c mod kLanes in order, then a fixed tree.
template <Elem A, Elem B>
static float RowDot(const char* a, const char* b, int dim) {
  V sum = Zero();
  int c = 0;
  for (; c + kLanes <= dim; c += kLanes) sum = Fma(LoadF32<A>(a + c * BytesOf(A)), LoadF32<B>(b + c * BytesOf(B)), sum);
  if (c < dim) {
    sum = Fma(LoadDwordsPartial<MathF32, A>(a + c * BytesOf(A), dim - c),
              LoadDwordsPartial<MathF32, B>(b + c * BytesOf(B), dim - c), sum);
  }
  return ReduceAdd(sum);
}

// Where the rows that are packed begin, in one tensor of queries; all of one head.
struct QueryRows {
  Elem type;
  const char* base;
  int64_t stride, bytes;  // bytes: of what is read of a row
  const char* At(int64_t r) const { return base + r * stride; }
};
static QueryRows RowsOf(Elem type, const char* base, int64_t batch_bytes, int64_t row_bytes, int64_t head_bytes, int dim) {
  return {type, base + batch_bytes + head_bytes, row_bytes, static_cast<int64_t>(dim) * BytesOf(type)};
}

// Rows [begin, end) of those at hand: who they are, what they see, their lse and delta, and what the sink gets of them.
// Fetches what comes next of dO and O, and q, which is packed after.
template <class M>
static void PrepareRows(BackwardRun<M>& run, const QueryRows& q, const QueryRows& dout, const QueryRows& out, int begin,
                        int end) {
  constexpr int kAhead = 8;  // rows
  const BackwardParams& p = run.p;
  const ForwardParams& f = run.f;
  const int64_t batch = f.varlen ? 0 : run.b;
  const int used = static_cast<int>(Min(end, run.queries));
  WithElem(dout.type, [&](auto a) {
    WithElem(out.type, [&](auto o) {
      for (int r = begin; r < used; ++r) {
        FetchRow(q.At(r), q.bytes);
        if (r + kAhead < run.queries) {
          FetchRow(dout.At(r + kAhead), dout.bytes);
          FetchRow(out.At(r + kAhead), out.bytes);
        }
        run.delta[r] = RowDot<decltype(a)::value, decltype(o)::value>(dout.At(r), out.At(r), f.head_dim_v);
      }
    });
  });
  for (int r = begin; r < end; ++r) {
    const int64_t i = run.first_query + r, at = f.varlen ? run.s.q_row + i : i;
    Row& row = run.info[r] = {run.b, run.head, i, 0, 0};
    float delta = r < used ? run.delta[r] : 0.0f;
    run.lse[r] = run.delta[r] = 0.0f;
    if (r >= used) continue;
    const Range range = VisibleRange(f, run.s, i);
    row.lo = range.begin;
    row.hi = range.end;
    const float lse = f.lse[batch * f.lse_stride_b + run.head * f.lse_stride_h + at * f.lse_stride_s];
    if (p.dlse) delta -= p.dlse[batch * p.dlse_stride_b + run.head * p.dlse_stride_h + at * p.dlse_stride_s];
    if (lse == kMinusInf) continue;  // an empty row
    run.lse[r] = -kLog2E * lse;
    run.delta[r] = delta;
    if (p.dsink) {
      const float sink = LoadElem(static_cast<const char*>(f.sink) + run.head * BytesOf(f.sink_type), f.sink_type);
      run.dsink -= __builtin_exp(static_cast<double>(sink) - static_cast<double>(lse)) * static_cast<double>(delta);
    }
  }
}

// Which keys the row tiles see.
template <class M>
static void PrepareTiles(BackwardRun<M>& run) {
  run.lo = INT64_MAX;
  run.hi = 0;
  for (int n = 0; n < RoundUp(run.queries, kGradBlock) / kGradRows; ++n) {
    typename BackwardRun<M>::Tile& tile = run.tiles[n] = {INT64_MAX, 0, 0, INT64_MAX, false};
    for (int r = n * kGradRows; r < (n + 1) * kGradRows; ++r) {
      const Row& row = run.info[r];
      tile.all_lo = Max(tile.all_lo, row.lo);
      tile.all_hi = Min(tile.all_hi, row.hi);
      if (row.lo >= row.hi) continue;
      tile.lo = Min(tile.lo, row.lo);
      tile.hi = Max(tile.hi, row.hi);
    }
    run.lo = Min(run.lo, tile.lo);
    run.hi = Max(run.hi, tile.hi);
  }
}

// Rows [begin, + n) of those at hand in both packed forms, zeros up to a whole block. True: all are finite.
template <class M>
static bool PackRows(BackwardRun<M>& run, const QueryRows& rows, int dim, int steps, int begin, int n, float* tiles,
                     float* panels) {
  NoStream none;
  int64_t offsets[kGradBlock];
  for (int r = 0; r < n; ++r) offsets[r] = r * rows.stride;
  const char* from[kGradBlock];
  for (int r = 0; r < kGradBlock; ++r) {
    from[r] = r < n ? rows.At(begin + r) : reinterpret_cast<const char*>(run.zeros);
  }
  WithElem(rows.type, [&](auto type) {
    constexpr Elem T = decltype(type)::value;
    int t = 0;
#ifdef REGARD_HAS_HALVES
    if constexpr (kLanes == 2 * kGradRows) {
      const bool whole = dim % (kLanes * M::kPack) == 0;
      for (; whole && t < kGradBlock; t += kLanes) {
        PackTwoTilesAs<M, T>(from + t, dim, static_cast<int64_t>(kGradRows) * steps,
                             tiles + static_cast<int64_t>(begin + t) * steps);
      }
    }
#endif
    for (; t < kGradBlock; t += kGradRows) {
      PackQueriesAs<M, T>(from + t, kGradRows, dim, 1.0f, tiles + static_cast<int64_t>(begin + t) * steps);
    }
  });
  const int64_t panel_floats = static_cast<int64_t>(kGradQueries) / M::kPack * kPanelKeys;
  panels += begin / M::kPack * kPanelKeys;
  const V finite = PackValues<M>(rows.type, rows.At(begin), offsets, n, dim, panel_floats, none, panels);
  const int at = (n + M::kPack - 1) / M::kPack;
  for (int c = 0; c < RoundUp(dim, kPanelKeys) / kPanelKeys; ++c) {
    memset(panels + c * panel_floats + at * kPanelKeys, 0,
           sizeof(float) * static_cast<size_t>((kGradBlock / M::kPack - at) * kPanelKeys));
  }
  return ReduceAdd(finite) == 0.0f;
}

// f32 rows [begin, + n) of dO as bf16, of which pairs are made.
template <class M>
static QueryRows RoundRows(BackwardRun<M>& run, const QueryRows& rows, int dim, int begin, int n) {
  char* const rounded = reinterpret_cast<char*>(run.rounded);
  const int64_t bytes = RoundUp(dim, kLanes) * 2;
  for (int r = begin; r < begin + n; ++r) {
    for (int c = 0; c < dim; c += kLanes) {
      const char* from = rows.At(r) + c * 4;
      StoreBF16(rounded + r * bytes + c * 2, dim - c >= kLanes ? LoadF32<Elem::kF32>(from)
                                                               : LoadDwordsPartial<MathF32, Elem::kF32>(from, dim - c));
    }
  }
  return {Elem::kBF16, rounded, bytes, bytes};
}

// Queries [first_query, + queries): their rows, and q and dO in both packed forms, a block at a time, so that each row is
// read from memory once.
template <class M>
static void PrepareQueries(BackwardRun<M>& run) {
  const BackwardParams& p = run.p;
  const ForwardParams& f = run.f;
  const int64_t batch = f.varlen ? 0 : run.b, first = (f.varlen ? run.s.q_row : 0) + run.first_query;
  QueryRows q = RowsOf(f.q_type, f.q, batch * f.q_stride_b, f.q_stride_s, run.head * f.q_stride_h, f.head_dim);
  QueryRows out = RowsOf(f.out_type, f.out, batch * f.out_stride_b, f.out_stride_s, run.head * f.out_stride_h, f.head_dim_v);
  QueryRows dout =
      RowsOf(p.dout_type, p.dout, batch * p.dout_stride_b, p.dout_stride_s, run.head * p.dout_stride_h, f.head_dim_v);
  q.base += first * q.stride;
  out.base += first * out.stride;
  dout.base += first * dout.stride;
  run.finite_queries = true;
  for (int begin = 0; begin < run.queries; begin += kGradBlock) {
    const int n = static_cast<int>(Min(kGradBlock, run.queries - begin));
    PrepareRows(run, q, dout, out, begin, begin + kGradBlock);
    const bool q_finite = PackRows(run, q, f.head_dim, run.size.steps, begin, n, run.q_rows, run.q_columns);
    const bool round = M::kPack == 2 && dout.type == Elem::kF32;
    const bool do_finite = PackRows(run, round ? RoundRows(run, dout, f.head_dim_v, begin, n) : dout, f.head_dim_v,
                                    run.size.steps_v, begin, n, run.do_rows, run.do_columns);
    run.finite_queries = run.finite_queries && q_finite && do_finite;
  }
  PrepareTiles(run);
}

// Keys j' [first_key, + keys) in their three packed forms.
template <class M>
static void PackKeyBlocks(BackwardRun<M>& run) {
  const ForwardParams& f = run.f;
  NoStream none;
  const int keys = static_cast<int>(run.keys);
  TokenOffsets(f, run.s, f.k, run.s.leftpad + run.first_key, keys, run.k_offsets);
  TokenOffsets(f, run.s, f.v, run.s.leftpad + run.first_key, keys, run.v_offsets);
  const char* const k = f.k.data + run.head_kv * f.k.head_stride;
  const char* const v = f.v.data + run.head_kv * f.v.head_stride;
  for (int j = 0; j < keys; j += kPanelKeys) {
    const int n = static_cast<int>(Min(kPanelKeys, keys - j));
    PackKeys<M>(f.kv_type, k, run.k_offsets + j, n, f.head_dim, none,
                run.k_panels + static_cast<int64_t>(j) * RoundUp(run.size.steps, kLanes));
    PackKeys<M>(f.kv_type, v, run.v_offsets + j, n, f.head_dim_v, none,
                run.v_panels + static_cast<int64_t>(j) * RoundUp(run.size.steps_v, kLanes));
  }
  const int64_t panel_floats = static_cast<int64_t>(kGradKeys) / M::kPack * kPanelKeys;
  const V finite = PackValues<M>(f.kv_type, k, run.k_offsets, keys, f.head_dim, panel_floats, none, run.k_columns);
  const int at = (keys + M::kPack - 1) / M::kPack, end = RoundUp(keys, kPanelKeys) / M::kPack;
  for (int c = 0; c < run.size.columns / kPanelKeys; ++c) {
    memset(run.k_columns + c * panel_floats + at * kPanelKeys, 0,
           sizeof(float) * static_cast<size_t>((end - at) * kPanelKeys));
  }
  V v_finite = finite;
  const int64_t floats = static_cast<int64_t>(RoundUp(keys, kPanelKeys)) * RoundUp(run.size.steps_v, kLanes);
  for (int64_t n = 0; n < floats; n += kLanes) v_finite = M::Mac(Load(run.v_panels + n), Zero(), v_finite);
  run.finite_keys = ReduceAdd(v_finite) == 0.0f;
}

// Hands out the parts of a worker's scratch.
template <class M>
static void TakeScratch(BackwardRun<M>& run, float* scratch) {
  const BackwardScratch<M>& size = run.size;
  float* at = scratch;
  const auto take = [&](int64_t floats) {
    float* const begin = at;
    at += floats;
    return begin;
  };
  run.q_rows = take(size.q_rows);
  run.q_columns = take(size.q_columns);
  run.do_rows = take(size.do_rows);
  run.do_columns = take(size.do_columns);
  run.k_panels = take(size.k_panels);
  run.v_panels = take(size.v_panels);
  run.k_columns = take(size.k_columns);
  run.dq = take(size.dq);
  run.zeros = take(size.zeros);
  run.rounded = take(size.rounded);
  run.touched = reinterpret_cast<uint8_t*>(take(size.touched));
  run.block.scores = take(size.scores);
  run.block.row_p = M::kPack == 1 ? run.block.scores : take(size.row_p);
  run.block.row_ds = take(size.row_ds);
  run.block.ds = M::kPack == 1 ? run.block.row_ds : take(size.ds);
  run.block.slope = size.slope > 0 ? take(size.slope) : nullptr;
  run.block.factor = size.factor > 0 ? take(size.factor) : nullptr;
  run.dk = take(size.dk);
  run.dv = take(size.dv);
  memset(run.zeros, 0, sizeof(float) * static_cast<size_t>(size.zeros));
}

}  // namespace regard::cpu::REGARD_ISA
