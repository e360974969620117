// The suite `gpu`: what is measured of the CUDA kernels, on the first GPU. Prefill holds 16384 query tokens whatever their
// sequences' length, so that a row's work grows with the length alone; decode reads 32768 keys of 8 heads of 128. No goals
// here: what a GPU's kernels are held against is measured beside them by other libraries (bench/peers/gpu_peers.py).
#include <fmt/format.h>

#include "cli/suites.h"

namespace regard::cli {
namespace {

constexpr int kTokens = 16384;

struct Prefill {
  const char* type;
  int dim;
  const char* mask;
  std::vector<int> lengths;
  int kv_heads = 8;
};

struct Decode {
  const char* name;
  int batch;
  const char* words;
};

}  // namespace

std::vector<Row> GpuRows() {
  const Prefill prefills[] = {
      {"bf16", 128, "causal", {1024, 2048, 4096, 8192, 16384}},
      {"bf16", 128, "full", {1024, 4096, 16384}},
      {"bf16", 64, "causal", {1024, 4096, 16384}},
      {"bf16", 64, "full", {4096}},
      {"f16", 128, "causal", {1024, 4096, 16384}},
      {"f16", 64, "causal", {4096}},
      {"bf16", 128, "causal", {4096}, 32},
  };
  constexpr Decode kDecodes[] = {
      {"bf16 b=1", 1, "dtype=bf16"},
      {"bf16 b=16", 16, "dtype=bf16"},
      {"f16 b=16", 16, "dtype=f16"},
      {"bf16 b=1 page=16", 1, "dtype=bf16 page=16 placement=random"},
      {"bf16 b=16 page=16", 16, "dtype=bf16 page=16 placement=random"},
      {"bf16 b=16 page=1", 16, "dtype=bf16 page=1 placement=random"},
      {"bf16 b=16 page=256", 16, "dtype=bf16 page=256 placement=random"},
      {"bf16 kv=f8 b=1", 1, "dtype=bf16 kv=f8e4m3"},
      {"bf16 kv=f8 b=16", 16, "dtype=bf16 kv=f8e4m3"},
  };
  std::vector<Row> rows;
  const auto add = [&](std::string name, std::string text) {
    rows.push_back({std::move(name), Figure::kRoof, std::move(text), "", {}, "cuda"});
  };
  for (const Prefill& p : prefills) {
    const bool causal = std::string(p.mask) == "causal";
    for (const int length : p.lengths) {
      add(fmt::format("prefill d={} s={} {} {}{}", p.dim, length, p.type, p.mask, p.kv_heads == 32 ? " hkv=32" : ""),
          fmt::format("prefill b={0} sq={1} skv={1} hq=32 hkv={2} d={3} dtype={4}{5}", kTokens / length, length, p.kv_heads,
                      p.dim, p.type, causal ? " causal" : ""));
    }
  }
  for (const Decode& d : kDecodes) {
    add(fmt::format("decode 32k {}", d.name),
        fmt::format("decode b={} sq=1 skv=32768 hq=32 hkv=8 d=128 {}", d.batch, d.words));
  }
  add("decode ragged page=16",
      "decode b=32 sq=1 skv=8000 hq=32 hkv=8 d=128 dtype=bf16 page=16 placement=random lens=uniform(17,8000) seed=1");
  add("backward d=128 s=1024 bf16 causal", "backward b=1 sq=1024 skv=1024 hq=32 hkv=8 d=128 dtype=bf16 causal");
  return rows;
}

}  // namespace regard::cli
