#include "src/cuda/instances.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <span>

#include "regard/plan.h"
#include "src/cuda/known_gpus.h"
#include "src/problem/phase.h"

namespace regard::cuda {
namespace {

int Padded(std::int64_t dim) {
  return static_cast<int>((std::max<std::int64_t>(dim, 1) + 15) / 16 * 16);
}

// CUDA cores work on 64, 128, 256 or 512 columns.
int GenericPadded(std::int64_t dim) {
  int padded = 64;
  while (padded < dim) padded *= 2;
  return padded;
}

bool HasOptions(const Problem& p) {
  return p.options.softcap > 0 || p.options.dropout > 0 || p.alibi || p.bias || p.mask;
}

// Warps, tiles of 16 rows a warp, and stages of prefill, best first; the first that fits is taken. Two tiles a warp read
// each key from shared memory once for both: at D = Dv = 128 a step of 16 rows and 64 keys moves 24 KiB of it in place
// of 40, by the model of src/cuda/floor.cc the difference between a tensor-bound kernel and one bound by shared memory.
// Two tiles with options, or wider, would spill registers (NVRTC 13.5, sm_80, D = 128 with options: 538 bytes).
struct Tiling {
  int warps, tiles, stages;
};
constexpr Tiling kNarrow[] = {{4, 2, 2}, {4, 2, 1}, {4, 1, 1}, {2, 1, 1}};             // D and Dv up to 64
constexpr Tiling kMiddle[] = {{4, 2, 1}, {8, 1, 1}, {4, 1, 1}, {2, 1, 1}, {1, 1, 1}};  // up to 128, no options
constexpr Tiling kWide[] = {{8, 1, 1}, {4, 1, 1}, {2, 1, 1}, {1, 1, 1}};

// The middle ones only where two blocks of 69 KiB share a multiprocessor: a single one of four warps hides too little.
std::span<const Tiling> TilingsFor(const TensorConfig& c, std::int64_t shared_bytes) {
  const int widest = std::max(c.head_dim, c.head_dim_v);
  if (widest <= 64) return kNarrow;
  if (widest <= 128 && !c.options && shared_bytes >= (std::int64_t{160} << 10)) return kMiddle;
  return kWide;
}

TensorConfig With(TensorConfig config, Tiling tiling) {
  config.warps = tiling.warps;
  config.tiles = tiling.tiles;
  config.stages = tiling.stages;
  return config;
}

// A configuration but for its tiling; none where tensor cores cannot do the problem.
std::optional<TensorConfig> Untiled(const Problem& p, const GpuCaps& gpu) {
  TensorConfig config{};
  config.head_dim = Padded(p.head_dim);
  config.head_dim_v = Padded(p.head_dim_v);
  if (std::max(config.head_dim, config.head_dim_v) > 256 || p.dtype == DType::kF32 || p.qv) return std::nullopt;
  config.products = gpu.sm >= 80 ? Products::kK16 : Products::kK8;
  config.type = p.dtype == DType::kBF16 ? Element::kBF16 : Element::kF16;
  config.fp8_q = IsFp8(p.dtype);
  config.fp8_kv = IsFp8(p.kv_dtype);
  config.split = RunsSplit(p);
  config.options = HasOptions(p);
  return config;
}

// With the best tiling that fits.
std::optional<TensorConfig> Tiled(const TensorConfig& untiled, std::int64_t shared_bytes) {
  const auto fits = [&](const TensorConfig& c, int blocks) {
    return blocks * std::int64_t{SharedBytes(c)} <= shared_bytes;
  };
  if (!untiled.split) {
    for (const Tiling& tiling : TilingsFor(untiled, shared_bytes)) {
      if (const TensorConfig c = With(untiled, tiling); fits(c, 1)) return c;
    }
    return std::nullopt;
  }
  // Decode: two blocks on a multiprocessor come before two stages in one of them.
  for (const int blocks : {2, 1}) {
    for (const int stages : {2, 1}) {
      if (const TensorConfig c = With(untiled, {4, 1, stages}); fits(c, blocks)) return c;
    }
  }
  return std::nullopt;
}

const char* TypeName(Element e) {
  constexpr const char* kNames[] = {"f32", "f16", "bf16", "f8e4m3", "f8e5m2"};
  return kNames[static_cast<int>(e)];
}

const char* EnumName(Element e) {
  constexpr const char* kNames[] = {"kF32", "kF16", "kBF16", "kE4M3", "kE5M2"};
  return kNames[static_cast<int>(e)];
}

std::string Number(int n) {
  return std::to_string(n);
}
const char* Truth(bool b) {
  return b ? "true" : "false";
}

// A translation unit: its name, the algorithm's header, and the entry point.
KernelInstance Made(std::string name, const std::string& header, const std::string& config, int threads, int min_blocks,
                    const std::string& params, const std::string& function, unsigned shared_bytes) {
  KernelInstance instance;
  instance.text = "// instance " + name + "\n#include \"" + header + "\"\n#include \"base/kernel.h\"\n" +
                  "namespace regard::cuda {\n" + config + "REGARD_KERNEL(" + Number(threads) + ", " +
                  Number(min_blocks) + ", " + params + ", " + function + ")\n}  // namespace regard::cuda\n";
  instance.name = std::move(name);
  instance.threads = threads;
  instance.min_blocks = min_blocks;
  instance.shared_bytes = shared_bytes;
  return instance;
}

std::string ConfigText(const GenericConfig& c) {
  return "inline constexpr GenericConfig kConfig{.head_dim = " + Number(c.head_dim) +
         ", .head_dim_v = " + Number(c.head_dim_v) + ", .split = " + Truth(c.split) + ", .qv = " + Truth(c.qv) + "};\n";
}

}  // namespace

Element ElementOf(DType type) {
  static_assert(static_cast<int>(Element::kE5M2) == static_cast<int>(DType::kF8E5M2));
  return static_cast<Element>(type);
}

bool RunsSplit(const Problem& p) {
  return p.phase != Phase::kMixed && p.seq_q <= kMaxDecodeQueries;
}

std::optional<TensorConfig> TensorConfigFor(const Problem& p, const GpuCaps& gpu) {
  const std::optional<TensorConfig> config = Untiled(p, gpu);
  return config ? Tiled(*config, gpu.shared_per_block_bytes) : std::nullopt;
}

bool TensorFits(const Problem& p, const GpuCaps& gpu) {
  std::optional<TensorConfig> config = Untiled(p, gpu);
  if (!config) return false;
  bool fits = true;
  for (const bool split : {false, true}) {
    config->split = split;
    fits = fits && Tiled(*config, gpu.shared_per_block_bytes);
  }
  return fits;
}

GenericConfig GenericConfigFor(const Problem& p) {
  return {GenericPadded(p.head_dim), GenericPadded(p.head_dim_v), RunsSplit(p), p.qv};
}

std::string NameOf(const TensorConfig& c) {
  std::string name = c.products == Products::kK16 ? "sm80." : "sm75.";
  name += c.split ? "decode." : "prefill.";
  name += TypeName(c.type);
  if (c.fp8_q) name += ".q8";
  if (c.fp8_kv) name += ".kv8";
  name += ".d" + Number(c.head_dim) + ".dv" + Number(c.head_dim_v) + ".warps" + Number(c.warps) + ".tiles" +
          Number(c.tiles) + ".stages" + Number(c.stages);
  return c.options ? name + ".options" : name;
}

std::string NameOf(const GenericConfig& c) {
  return std::string("generic.") + (c.split ? "decode" : "prefill") + ".d" + Number(c.head_dim) + ".dv" +
         Number(c.head_dim_v) + (c.qv ? ".qv" : "");
}

KernelInstance InstanceOf(const TensorConfig& c) {
  const std::string config =
      std::string("inline constexpr TensorConfig kConfig{.products = Products::") +
      (c.products == Products::kK16 ? "kK16" : "kK8") + ", .type = Element::" + EnumName(c.type) +
      ", .fp8_q = " + Truth(c.fp8_q) + ", .fp8_kv = " + Truth(c.fp8_kv) + ", .head_dim = " + Number(c.head_dim) +
      ", .head_dim_v = " + Number(c.head_dim_v) + ", .warps = " + Number(c.warps) + ", .tiles = " + Number(c.tiles) +
      ", .stages = " + Number(c.stages) + ", .split = " + Truth(c.split) + ", .options = " + Truth(c.options) + "};\n";
  // 255 registers a thread for blocks of up to 128 threads, two of them a multiprocessor; 8 warps have 255 alone.
  const int min_blocks = c.Threads() <= 128 ? 2 : 1;
  return Made(NameOf(c), c.split ? "sm80/decode.h" : "sm80/prefill.h", config, c.Threads(), min_blocks, "ForwardParams",
              c.split ? "sm80::DecodeKernel<kConfig>" : "sm80::PrefillKernel<kConfig>",
              static_cast<unsigned>(SharedBytes(c)));
}

KernelInstance InstanceOf(const GenericConfig& c) {
  return Made(NameOf(c), "generic/forward.h", ConfigText(c), GenericConfig::kThreads, 1, "ForwardParams",
              "generic::ForwardKernel<kConfig>", static_cast<unsigned>(SharedBytes(c)));
}

// All decode kernels leave states of 16 rows alike; only their width counts.
KernelInstance CombineInstance(int head_dim_v) {
  const std::string columns = Number(head_dim_v);
  return Made("combine.dv" + columns, "generic/combine.h", "", kRowThreads, 1, "ForwardParams",
              "generic::CombineKernel<" + columns + ">", 0);
}
KernelInstance AppendInstance() {
  return Made("append", "generic/append.h", "", kRowThreads, 1, "AppendParams", "generic::AppendKernel", 0);
}
KernelInstance MergeInstance() {
  return Made("merge", "generic/merge.h", "", kRowThreads, 1, "MergeParams", "generic::MergeKernel", 0);
}

KernelInstance BackwardInstance(BackwardPart part, const Problem& p) {
  const std::string d = Number(GenericPadded(p.head_dim)), dv = Number(GenericPadded(p.head_dim_v));
  const auto made = [](const std::string& name, const std::string& function) {
    return Made("backward." + name, "generic/backward.h", "", kRowThreads, 1, "BackwardParams", "generic::" + function,
                0);
  };
  const std::string dims = ".d" + d + ".dv" + dv, arguments = "<" + d + ", " + dv + ">";
  switch (part) {
    case BackwardPart::kDelta:
      return made("delta.dv" + dv, "DeltaKernel<" + dv + ">");
    case BackwardPart::kQuery:
      return made("query" + dims, "QueryGradientKernel" + arguments);
    case BackwardPart::kKey:
      return made("key" + dims, "KeyGradientKernel" + arguments);
    case BackwardPart::kBias:
      return made("bias" + dims, "BiasGradientKernel" + arguments);
    case BackwardPart::kSink:
      break;
  }
  return made("sink", "SinkGradientKernel");
}

std::vector<NeededInstance> InstancesOf(Generation generation, const Problem& p, const GpuCaps& gpu) {
  std::vector<NeededInstance> needed;
  if (p.phase == Phase::kBackward) {
    for (const BackwardPart part : kBackwardParts) {
      if ((part == BackwardPart::kBias && !p.dbias) || (part == BackwardPart::kSink && !p.dsink)) continue;
      needed.push_back({Role::kBackward, BackwardInstance(part, p), part});
    }
    return needed;
  }
  if (p.append) needed.push_back({Role::kAppend, AppendInstance()});
  int head_dim_v = 0;
  if (generation == Generation::kGeneric) {
    const GenericConfig config = GenericConfigFor(p);
    head_dim_v = config.head_dim_v;
    needed.push_back({Role::kAttend, InstanceOf(config)});
  } else {
    const TensorConfig config = TensorConfigFor(p, gpu).value();  // the row's supports() has asked
    head_dim_v = config.head_dim_v;
    needed.push_back({Role::kAttend, InstanceOf(config)});
  }
  if (RunsSplit(p) && p.seq_kv > kSplitKeys) needed.push_back({Role::kCombine, CombineInstance(head_dim_v)});
  return needed;
}

std::vector<KernelInstance> InstancesFor(const Problem& p, const DeviceCaps& caps) {
  std::vector<KernelInstance> instances;
  if (!caps.gpu) return instances;
  const std::string kernel = Select(p, caps).kernel;
  const Generation generation = kernel.starts_with("cuda.sm80.")   ? Generation::kSm80
                                : kernel.starts_with("cuda.sm75.") ? Generation::kSm75
                                                                   : Generation::kGeneric;
  for (NeededInstance& needed : InstancesOf(generation, p, *caps.gpu)) instances.push_back(std::move(needed.instance));
  return instances;
}

std::vector<KernelInstance> AllInstances(int sm) {
  constexpr int kDims[][2] = {{64, 64}, {96, 96}, {128, 128}, {192, 192}, {256, 256}, {192, 128}};
  constexpr DType kTypes[] = {DType::kF16, DType::kBF16, DType::kF8E4M3};
  GpuCaps gpu;
  gpu.sm = sm;
  gpu.shared_per_block_bytes = SharedBytesPerBlock(sm);
  std::vector<KernelInstance> all;
  std::set<std::string> names;
  const auto add = [&](KernelInstance instance) {
    if (names.insert(instance.name).second) all.push_back(std::move(instance));
  };
  const auto add_tensor = [&](Problem p) {
    for (const int queries : {kMaxDecodeQueries + 1, 1}) {
      p.seq_q = queries;
      for (const bool options : {false, true}) {
        p.mask = options;
        const std::optional<TensorConfig> config = TensorConfigFor(p, gpu);
        if (!config) continue;
        add(InstanceOf(*config));
        if (config->split) add(CombineInstance(config->head_dim_v));
      }
    }
  };
  for (const auto& [d, dv] : kDims) {
    Problem p;
    p.head_dim = d;
    p.head_dim_v = dv;
    for (const DType type : kTypes) {
      for (const DType kv : {type, DType::kF8E4M3}) {
        if (sm < 75 || (sm < 80 && type != DType::kF16)) continue;
        p.dtype = type;
        p.kv_dtype = kv;
        add_tensor(p);
      }
    }
  }
  constexpr int kGenericDims[][2] = {{64, 64}, {128, 128}, {256, 256}, {512, 512}, {256, 128}};
  for (const auto& [d, dv] : kGenericDims) {
    for (const bool split : {false, true}) add(InstanceOf(GenericConfig{d, dv, split, false}));
    add(CombineInstance(dv));
    Problem p;
    p.head_dim = d;
    p.head_dim_v = dv;
    for (const BackwardPart part : kBackwardParts) add(BackwardInstance(part, p));
  }
  for (const bool split : {false, true}) add(InstanceOf(GenericConfig{64, 512, split, true}));  // latent attention
  add(AppendInstance());
  add(MergeInstance());
  return all;
}

}  // namespace regard::cuda
