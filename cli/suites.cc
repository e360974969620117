#include "cli/suites.h"

#include "regard/status.h"

namespace regard::cli {
namespace {

// The shape that most served models share: 32 query heads over 8 kv heads of 128.
const std::string kPrefill = "prefill b=1 sq=2048 skv=2048 hq=32 hkv=8 d=128 ";
const std::string kDecode = "decode b=1 sq=1 skv=32768 hq=32 hkv=8 d=128 ";
const std::string kSmallPrefill = "prefill b=1 sq=512 skv=512 hq=8 hkv=2 d=128 ";

std::vector<Suite> MakeSuites() {
  return {
      {"quick",
       "five small cases, seconds",
       {kSmallPrefill + "dtype=f32 causal", kSmallPrefill + "dtype=bf16 causal",
        "decode b=1 sq=1 skv=16384 hq=32 hkv=8 d=128 dtype=bf16",
        "decode b=4 sq=1 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 page=16 placement=random",
        "decode b=1 sq=1 skv=16384 hq=32 hkv=8 d=128 dtype=bf16 kv=f8e4m3"}},
      {"core",
       "prefill of 2048 and decode over 32768 tokens, every element type and page size",
       {kPrefill + "dtype=f32", kPrefill + "dtype=f32 causal", kPrefill + "dtype=bf16", kPrefill + "dtype=bf16 causal",
        kPrefill + "dtype=f16", kPrefill + "dtype=f16 causal", kDecode + "dtype=f32", kDecode + "dtype=f16",
        kDecode + "dtype=bf16", kDecode + "dtype=bf16 kv=f8e4m3", kDecode + "dtype=bf16 page=1",
        kDecode + "dtype=bf16 page=16", kDecode + "dtype=bf16 page=256", kDecode + "dtype=bf16 page=1 placement=random",
        kDecode + "dtype=bf16 page=16 placement=random"}},
      {"options",
       "what each option costs a bf16 prefill of 2048",
       {kPrefill + "dtype=bf16 causal", kPrefill + "dtype=bf16 causal softcap=30",
        kPrefill + "dtype=bf16 causal window=511,0", kPrefill + "dtype=bf16 causal chunk=512",
        kPrefill + "dtype=bf16 causal alibi", kPrefill + "dtype=bf16 causal sink", kPrefill + "dtype=bf16 bias",
        kPrefill + "dtype=bf16 mask=0.1", kPrefill + "dtype=bf16 causal lse"}},
      {"serving",
       "ragged decode batches, chunked prefill, mixed batches, over pages of 16 in random order",
       {"decode b=32 sq=1 skv=8000 hq=32 hkv=8 d=128 dtype=bf16 page=16 placement=random lens=uniform(17,8000) seed=1",
        "decode b=64 sq=1 skv=1024 hq=32 hkv=8 d=128 dtype=bf16 page=16 placement=random",
        "prefill b=1 sq=512 skv=8192 hq=32 hkv=8 d=128 dtype=bf16 causal page=16 placement=random",
        "mixed b=9 sq=512 skv=4096 hq=32 hkv=8 d=128 dtype=bf16 causal varlen page=16 placement=random "
        "qlens=512*1,1*8 lens=2048*1,4096*8"}},
      {"cpu", "every goal of the CPU kernels: roofs, pages, options, fp8, batches, overhead, growth", {}, CpuRows()},
      {"backward", "goals of the backward pass: 32 query heads over 8 kv heads of 128, five products a pair", {}, BackwardRows()},
      {"gpu",
       "the CUDA kernels on the first GPU: prefill of 1024 to 16384, decode over 32768 tokens, pages, fp8",
       {},
       GpuRows()},
  };
}

}  // namespace

std::span<const Suite> Suites() {
  static const std::vector<Suite> suites = MakeSuites();
  return suites;
}

const Suite& FindSuite(const std::string& name) {
  std::string known;
  for (const Suite& suite : Suites()) {
    if (name == suite.name) return suite;
    known += (known.empty() ? "" : ", ") + std::string(suite.name);
  }
  throw Error("--suite", name, "one of " + known);
}

}  // namespace regard::cli
