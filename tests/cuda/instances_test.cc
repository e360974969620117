// Which compiled kernel a problem gets on a chip: names, texts, shared memory.
#include "src/cuda/instances.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "src/cuda/known_gpus.h"

namespace regard::cuda {
namespace {

constexpr int kArchs[] = {70, 75, 80, 86, 89, 90, 100, 120};

GpuCaps Gpu(const char* name) {
  return *DeviceCaps::Known(name).gpu;
}

TEST(Instances, OfEveryArchHaveUniqueNamesAndTexts) {
  std::map<std::string, std::string> text_of;
  for (const int sm : kArchs) {
    const std::vector<KernelInstance> all = AllInstances(sm);
    EXPECT_FALSE(all.empty()) << sm;
    std::set<std::string> names;
    for (const KernelInstance& instance : all) {
      EXPECT_TRUE(names.insert(instance.name).second) << instance.name << " twice on " << sm;
      EXPECT_TRUE(instance.text.starts_with("// instance " + instance.name + "\n")) << instance.text;
      const auto [known, added] = text_of.emplace(instance.name, instance.text);
      EXPECT_TRUE(added || known->second == instance.text) << instance.name << " has two texts";
    }
  }
}

TEST(Instances, FitTheSharedMemoryOfTheirChip) {
  for (const int sm : kArchs) {
    for (const KernelInstance& instance : AllInstances(sm)) {
      EXPECT_LE(instance.shared_bytes, SharedBytesPerBlock(sm)) << instance.name << " on sm_" << sm;
      EXPECT_GT(instance.threads, 0);
    }
  }
}

TEST(Instances, TensorCoresAreThereFromTuringOnAndBf16FromAmpereOn) {
  const auto has = [](int sm, const std::string& prefix) {
    for (const KernelInstance& instance : AllInstances(sm)) {
      if (instance.name.starts_with(prefix)) return true;
    }
    return false;
  };
  EXPECT_FALSE(has(70, "sm75.") || has(70, "sm80."));
  EXPECT_TRUE(has(70, "generic.prefill."));
  EXPECT_TRUE(has(75, "sm75.prefill.f16.d128.dv128."));
  EXPECT_FALSE(has(75, "sm75.prefill.bf16.") || has(75, "sm80.") || has(75, "sm75.prefill.f16.d256."));
  for (const int sm : {80, 86, 89, 90, 100, 120}) {
    for (const char* name :
         {"sm80.prefill.bf16.d64.dv64.", "sm80.decode.f16.d256.dv256.", "sm80.prefill.f16.d192.dv128.",
          "sm80.decode.f16.q8.kv8.d128.dv128.", "append", "merge", "backward.key.d128.dv128"}) {
      EXPECT_TRUE(has(sm, name)) << name << " on sm_" << sm;
    }
  }
}

TEST(Instances, OddHeadDimsArePaddedInside) {
  const Problem p = ParseProblem("prefill sq=64 skv=64 d=72 dv=1 dtype=bf16 mask=0.5");
  const auto config = TensorConfigFor(p, Gpu("A100"));
  ASSERT_TRUE(config);
  EXPECT_EQ(config->head_dim, 80);
  EXPECT_EQ(config->head_dim_v, 16);
  EXPECT_TRUE(config->options);
  EXPECT_TRUE(NameOf(*config).starts_with("sm80.prefill.bf16.d80.dv16.")) << NameOf(*config);
  EXPECT_TRUE(NameOf(*config).ends_with(".options")) << NameOf(*config);
  const GenericConfig generic = GenericConfigFor(ParseProblem("decode sq=3 skv=64 d=65 dv=512 dtype=f32"));
  EXPECT_EQ(NameOf(generic), "generic.decode.d128.dv512");
}

TEST(Instances, OptionsThatThePlainKernelKnowsDoNotAskForTheOther) {
  for (const char* words : {"causal", "window=20,4", "chunk=32", "sink", "leftpad", "lse", "page=1"}) {
    const auto config =
        TensorConfigFor(ParseProblem(std::string("prefill sq=64 skv=64 dtype=f16 ") + words), Gpu("H100"));
    ASSERT_TRUE(config) << words;
    EXPECT_FALSE(config->options) << words;
  }
  for (const char* words : {"softcap=30", "alibi", "bias", "mask=0.5", "dropout=0.1"}) {
    const auto config =
        TensorConfigFor(ParseProblem(std::string("decode sq=1 skv=64 dtype=f16 ") + words), Gpu("H100"));
    ASSERT_TRUE(config) << words;
    EXPECT_TRUE(config->options) << words;
  }
}

TEST(Instances, TheTilingFollowsTheChipAndNotTheProblem) {
  const auto name = [](const char* gpu, const char* text) {
    return NameOf(*TensorConfigFor(ParseProblem(text), Gpu(gpu)));
  };
  EXPECT_NE(name("A100", "prefill sq=64 skv=64 d=256 dtype=f16"),
            name("RTX 4090", "prefill sq=64 skv=64 d=256 dtype=f16"));
  EXPECT_NE(name("A100", "decode sq=1 skv=64 d=128 dtype=f16"), name("RTX 4090", "decode sq=1 skv=64 d=128 dtype=f16"));
  EXPECT_EQ(name("A100", "prefill sq=64 skv=64 d=128 dtype=f16"),
            name("H100", "prefill b=9 sq=4000 skv=9000 d=128 dtype=f16"));
  EXPECT_FALSE(TensorConfigFor(ParseProblem("prefill sq=64 skv=64 d=128 dtype=f32"), Gpu("A100")));
  EXPECT_FALSE(TensorConfigFor(ParseProblem("prefill sq=64 skv=64 d=257 dtype=f16"), Gpu("A100")));
}

}  // namespace
}  // namespace regard::cuda
