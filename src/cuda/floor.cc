// One tile step is 16 query rows meeting a block of 64 keys. Its costs, from the kernels' loops (src/cuda/kernels/sm80,
// generic), with T tiles of 16 rows a warp and R rows a block of threads:
//   tensor cores   2 * 16 * 64 * (D + Dv) flops
//   shared memory  queries 512 B and keys 2048 / T B for each 16 dims, values 128 Dv / T B, their copies 128 (D + Dv) * 16 / R
//                  B; decode's four warps each read the queries and the 2 KiB of weights
//   exp2           one a score (and a row's factor), 16 a clock of a multiprocessor
//   f32            five instructions a score (scale, maximum, subtract, sum, half a conversion), Dv a row to rescale
//   memory         every element of q, k, v and out once
// CUDA cores: D + Dv fused steps a score; three loads of shared memory for eight of those of QK, one for four of PV.
// Shared memory moves 128 bytes a clock of a multiprocessor. The clock follows from the chip's f32 rate and its f32 lanes a
// multiprocessor: 64 (sm_70, 75, 80) or 128 (CUDA C++ Programming Guide, arithmetic instructions).
#include "src/cuda/floor.h"

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "src/backend/work.h"
#include "src/cuda/instances.h"
#include "src/problem/extent.h"
#include "src/problem/lengths.h"

namespace regard::cuda {
namespace {

constexpr double kRows = 16;

// Tile steps of one kv head of one sequence; `tile_rows` share their blocks.
double StepsOf(const Problem& p, std::int64_t queries, std::int64_t keys, std::int64_t tile_rows) {
  Sequence s;
  s.rows = s.seq_q = queries;
  s.seq_kv = keys;
  s.q_offset = keys - queries;
  const std::int64_t rows = queries * p.Group(), tiles = (rows + tile_rows - 1) / tile_rows;
  // Long sequences have many tiles whose ranges move on evenly: some of them stand for all.
  const std::int64_t stride = std::max<std::int64_t>(tiles / 4096, 1);
  double steps = 0, seen = 0;
  for (std::int64_t tile = 0; tile < tiles; tile += stride) {
    const std::int64_t first = tile * tile_rows / p.Group();
    const std::int64_t last = std::min((tile * tile_rows + tile_rows - 1) / p.Group(), queries - 1);
    const KeyRange low = VisibleKeys(p.options, s, first), high = VisibleKeys(p.options, s, last);
    const std::int64_t begin = low.begin / kBlockKeys, end = (high.end + kBlockKeys - 1) / kBlockKeys;
    steps += static_cast<double>(std::max<std::int64_t>(end - begin, 0) * tile_rows) / kRows;
    seen += 1;
  }
  return seen > 0 ? steps * static_cast<double>(tiles) / seen : 0;
}

double AllSteps(const Problem& p, std::int64_t tile_rows) {
  if (p.lens.empty() && p.qlens.empty()) {
    return StepsOf(p, p.seq_q, p.seq_kv, tile_rows) * static_cast<double>(p.batch * p.heads_kv);
  }
  const std::vector<std::int64_t> queries = QueryLengths(p), keys = KeyLengths(p);
  double steps = 0;
  for (std::size_t b = 0; b < queries.size(); ++b) steps += StepsOf(p, queries[b], keys[b], tile_rows);
  return steps * static_cast<double>(p.heads_kv);
}

}  // namespace

std::vector<FloorTerm> FloorOf(const Problem& p, const DeviceCaps& caps, const Selection& selection) {
  const std::string_view kernel = selection.kernel;
  if (!caps.gpu || p.phase == Phase::kBackward || !kernel.starts_with("cuda.")) return {};
  const GpuCaps& gpu = *caps.gpu;
  const double lanes = gpu.sm <= 80 ? 64 : 128, multiprocessors = std::max(gpu.multiprocessors, 1);
  const double clock = gpu.f32_tflops * 1e12 / (2 * lanes * multiprocessors);
  const double shared_rate = 128 * multiprocessors * clock, exp_rate = 16 * multiprocessors * clock;
  const double f32_rate = lanes * multiprocessors * clock;
  const double scores = kRows * kBlockKeys;
  std::vector<FloorTerm> terms;
  double steps = 0, shared = 0, f32 = 0;
  if (kernel.starts_with("cuda.generic.")) {
    const double d = static_cast<double>(p.head_dim + (p.qv ? p.head_dim_v : 0)), dv = static_cast<double>(p.head_dim_v);
    steps = AllSteps(p, GenericConfig::kTileRows);
    shared = 128 * (scores / 32) * (d * 3 / 8 + dv / 4);
    f32 = scores * (d + dv + 5) + kRows * dv;
  } else {
    const std::optional<TensorConfig> config = TensorConfigFor(p, gpu);
    if (!config) return {};
    const double d = config->head_dim, dv = config->head_dim_v, tiles = config->tiles, rows = config->TileRows();
    steps = AllSteps(p, config->TileRows());
    const double copies = 128 * (d + dv) * kRows / rows;
    shared = config->split ? 4 * 512 * d / 16 + 128 * (d + dv) + 4 * 2048 + copies
                           : 512 * d / 16 + (2048 * d / 16 + 128 * dv) / tiles + copies;
    f32 = scores * 5 + kRows * dv;
    terms.push_back({"tensor cores", steps * 2 * scores * (d + dv) / (gpu.tensor_f16_tflops * 1e12)});
  }
  terms.push_back({"shared memory", steps * shared / shared_rate});
  terms.push_back({"exp2", steps * (scores + kRows) / exp_rate});
  terms.push_back({"f32", steps * f32 / f32_rate});
  terms.push_back({"memory", WorkOf(p).bytes / (gpu.memory_gbps * 1e9)});
  return terms;
}

}  // namespace regard::cuda
