// The suite `cpu`: what the CPU kernels should reach. Goals in per cent of a roof are those of a machine with AVX-512
// and BF16 dot products (Zen 4, Zen 5); ratios hold anywhere.
#include <array>

#include <fmt/format.h>

#include "cli/suites.h"

namespace regard::cli {
namespace {

constexpr std::array<const char*, 3> kTypes = {"f32", "bf16", "f16"};

// Several threads keep 95 % of what one reaches.
Goals Compute(double one) {
  return {one, 0.95 * one};
}
Goals Always(double goal) {
  return {goal, goal};
}
// Two threads share the memory, unless it scales.
Goals Reading(double one, double more) {
  return {one, more, true};
}

std::string Heads(const std::string& words) {
  return " hq=32 hkv=8 " + words;
}
std::string Prefill(int tokens, const std::string& words) {
  return fmt::format("prefill b=1 sq={0} skv={0}", tokens) + Heads(words);
}
std::string Decode(int batch, const std::string& words) {
  return fmt::format("decode b={} sq=1 skv=32768", batch) + Heads(words);
}

void AddRoofs(std::vector<Row>* rows) {
  struct Shape {
    int dim, tokens;
    const char* mask;
    std::array<double, 3> goals;  // by type
  };
  constexpr Shape kShapes[] = {{128, 4096, "full", {91, 86, 88}},   {128, 4096, "causal", {88, 82, 85}},
                               {128, 512, "causal", {76, 70, 72}},  {64, 2048, "full", {86, 79, 83}},
                               {64, 2048, "causal", {82, 73, 79}}};
  for (const Shape& shape : kShapes) {
    for (std::size_t t = 0; t < kTypes.size(); ++t) {
      std::string words = fmt::format("d={} dtype={}", shape.dim, kTypes[t]);
      if (std::string(shape.mask) == "causal") words += " causal";
      rows->push_back({fmt::format("prefill d={} s={} {} {}", shape.dim, shape.tokens, kTypes[t], shape.mask),
                       Figure::kRoof, Prefill(shape.tokens, words), "", Compute(shape.goals[t]), ""});
    }
  }
  constexpr std::array<double, 3> kOne = {76, 80, 63}, kMore = {91, 88, 86};
  for (const int batch : {1, 8}) {
    for (std::size_t t = 0; t < kTypes.size(); ++t) {
      rows->push_back({fmt::format("decode 32k b={} {}", batch, kTypes[t]), Figure::kRoof,
                       Decode(batch, fmt::format("d=128 dtype={}", kTypes[t])), "", Reading(kOne[t], kMore[t]), ""});
    }
  }
}

void AddPages(std::vector<Row>* rows) {
  struct Pages {
    int size;
    double ordered, random;  // most time against dense
  };
  // Random order: pages of 256 are held to the goal of 16.
  constexpr Pages kPages[] = {{1, 1.10, 1.12}, {16, 1.03, 1.05}, {256, 1.03, 1.05}};
  for (const char* type : {"bf16", "f32"}) {
    const std::string words = fmt::format("d=128 dtype={}", type);
    const std::string prefill = Prefill(2048, words + " causal"), decode = Decode(1, words);
    for (const Pages& pages : kPages) {
      const std::string page = fmt::format(" page={}", pages.size), random = page + " placement=random";
      const std::string name = fmt::format("{} pages of {}", type, pages.size);
      rows->push_back({"decode 32k " + name + " in order against dense", Figure::kTime, decode + page, decode,
                       Always(pages.ordered), ""});
      rows->push_back({"prefill s=2048 " + name + " in order against dense", Figure::kTime, prefill + page, prefill,
                       Always(pages.ordered), ""});
      rows->push_back({"decode 32k " + name + " at random", Figure::kRoof, decode + random, "", Always(90), ""});
      rows->push_back({"prefill s=2048 " + name + " at random against dense", Figure::kTime, prefill + random, prefill,
                       Always(pages.random), ""});
    }
  }
}

void AddOptions(std::vector<Row>* rows) {
  struct Option {
    const char *name, *prefill, *decode;
    double goal;
  };
  constexpr Option kOptions[] = {{"window", "window=511,0", "window=16383,0", 1.10},
                                 {"alibi", "alibi", "alibi", 1.10},
                                 {"sink", "sink", "sink", 1.10},
                                 {"softcap", "softcap=30", "softcap=30", 1.20},
                                 {"bias", "bias", "bias", 1.20}};
  for (const Option& option : kOptions) {
    for (const char* type : {"bf16", "f32"}) {
      const std::string words = fmt::format("d=128 dtype={}", type);
      const std::string prefill = Prefill(2048, words + " causal"), decode = Decode(1, words);
      rows->push_back({fmt::format("prefill s=2048 {} {} against plain", type, option.name), Figure::kTimePerPair,
                       prefill + " " + option.prefill, prefill, Always(option.goal), ""});
      rows->push_back({fmt::format("decode 32k {} {} against plain", type, option.name), Figure::kTimePerPair,
                       decode + " " + option.decode, decode, Always(option.goal), ""});
    }
  }
  const std::string long_case = "prefill b=1 sq=32768 skv=32768 hq=4 hkv=1 d=128 dtype=bf16 causal";
  rows->push_back({"prefill s=32k bf16 window of 1024 against causal", Figure::kTimePerPair,
                   long_case + " window=1023,0", long_case, Always(1.15), ""});
}

void AddFp8(std::vector<Row>* rows) {
  const std::string decode = Decode(1, "d=128 dtype=bf16"), prefill = Prefill(2048, "d=128 dtype=bf16 causal");
  const Goals two_threads = {std::nullopt, 1.6};
  for (const char* type : {"f8e4m3", "f8e5m2"}) {
    rows->push_back({fmt::format("decode 32k {} keys against bf16", type), Figure::kSpeed,
                     decode + " kv=" + type, decode, two_threads, ""});
    rows->push_back({fmt::format("prefill s=2048 {} keys against bf16", type), Figure::kSpeed,
                     prefill + " kv=" + type, prefill, Always(0.9), ""});
  }
  rows->push_back({"prefill s=2048 f8e4m3 queries and keys against bf16", Figure::kSpeed,
                   Prefill(2048, "d=128 dtype=f8e4m3 causal"), prefill, Always(0.9), ""});
}

void AddServing(std::vector<Row>* rows) {
  const std::string words = "hq=32 hkv=8 d=128 dtype=bf16 page=16";
  rows->push_back({"decode of 64 sequences of 17 to 8000 against one by one", Figure::kParts,
                   "decode b=64 sq=1 skv=8000 " + words + " lens=uniform(17,8000)", "", Always(1.10), ""});
  rows->push_back({"2 prefills of 1024 and 30 decodes at 4096 against one by one", Figure::kParts,
                   "mixed b=32 sq=1024 skv=4096 " + words + " causal varlen qlens=1024*2,1*30 lens=1024*2,4096*30", "",
                   Always(1.10), ""});
  for (const char* type : {"bf16", "f32"}) {
    rows->push_back({fmt::format("launch of a tiny decode {} beyond its kernel", type), Figure::kOverhead,
                     fmt::format("decode b=1 sq=1 skv=16 hq=32 hkv=8 d=128 dtype={}", type), "", Always(2), ""});
  }
}

void AddAvx2(std::vector<Row>* rows) {
  constexpr std::array<double, 3> kGoals = {80, 75, 75};
  for (std::size_t t = 0; t < kTypes.size(); ++t) {
    const std::string words = fmt::format("d=128 dtype={}", kTypes[t]);
    rows->push_back({fmt::format("avx2 prefill s=2048 {} full", kTypes[t]), Figure::kRoof, Prefill(2048, words), "",
                     Always(kGoals[t]), "cpu.avx2"});
    rows->push_back({fmt::format("avx2 decode 32k {}", kTypes[t]), Figure::kRoof, Decode(1, words), "",
                     {std::nullopt, 80}, "cpu.avx2"});
  }
}

// What a row's fixed bits cost: the default against weaker promises, the very same inputs.
void AddInvariance(std::vector<Row>* rows) {
  for (const char* type : {"bf16", "f32"}) {
    for (const char* weaker : {"batch", "none"}) {
      const std::string words = fmt::format("d=128 dtype={}", type), less = fmt::format(" invariance={}", weaker);
      const std::string prefill = Prefill(2048, words + " causal"), decode = Decode(1, words);
      rows->push_back({fmt::format("prefill s=2048 {} against invariance={}", type, weaker), Figure::kTime, prefill,
                       prefill + less, Always(1.03), ""});
      rows->push_back({fmt::format("decode 32k {} against invariance={}", type, weaker), Figure::kTime, decode,
                       decode + less, Always(1.03), ""});
    }
  }
}

// Four query heads over one kv head keep the long case short: 64k tokens are 4.4 TFLOP.
void AddGrowth(std::vector<Row>* rows) {
  const auto text = [](int tokens, const char* type) {
    return fmt::format("prefill b=1 sq={0} skv={0} hq=4 hkv=1 d=128 dtype={1} causal", tokens, type);
  };
  for (const char* type : {"bf16", "f32"}) {
    rows->push_back({fmt::format("growth {} s=64k against s=2k", type), Figure::kTimePerPair, text(65536, type),
                     text(2048, type), Always(1.05), ""});
    rows->push_back(
        {fmt::format("workspace {} s=64k", type), Figure::kWorkspace, text(65536, type), "", Always(1), ""});
  }
  rows->push_back({"workspace bf16 s=128k one head", Figure::kWorkspace,
                   "prefill b=1 sq=131072 skv=131072 hq=1 hkv=1 d=128 dtype=bf16 causal", "", Always(1), ""});
}

}  // namespace

std::vector<Row> CpuRows() {
  std::vector<Row> rows;
  AddRoofs(&rows);
  AddPages(&rows);
  AddOptions(&rows);
  AddFp8(&rows);
  AddServing(&rows);
  AddAvx2(&rows);
  AddInvariance(&rows);
  AddGrowth(&rows);
  return rows;
}

}  // namespace regard::cli
