// `regard info`: this machine as regard sees it, and on request the roofs that it measures.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/device_options.h"
#include "cli/page_kind.h"
#include "cli/text_table.h"
#include "regard/device.h"
#include "regard/executor.h"
#include "regard/version.h"
#include "src/cases/buffer.h"
#include "src/cpu/probe/roof.h"
#include "src/cuda/devices.h"
#include "src/cuda/driver/driver_api.h"
#include "src/cuda/driver/nvrtc.h"

namespace regard::cli {
namespace {

struct FlopsFigure {
  std::string roof;  // "fma_f32" or "dot_bf16"
  Isa isa = Isa::kScalar;
  probe::PipeCheck one_thread;
  double all_threads = 0;  // operations per second
};

struct ReadFigure {
  int threads = 1;
  double bytes_per_second = 0;
  std::string variant;
};

struct Measured {
  double clock_hz = 0;
  std::vector<FlopsFigure> flops;
  std::vector<ReadFigure> read;
  std::size_t read_bytes = 0;
  std::string pages;
};

std::unique_ptr<Executor> Threads(int n) {
  return std::unique_ptr<Executor>(MakeExecutor(ExecutorKind::kOpenMp, n));
}

FlopsFigure MeasureFlops(Isa isa, probe::FlopsKind kind, Executor& all) {
  FlopsFigure figure;
  figure.roof = kind == probe::FlopsKind::kFmaF32 ? "fma_f32" : "dot_bf16";
  figure.isa = isa;
  figure.one_thread = probe::CheckPipes(isa, kind);
  for (int round = 0; round < 10 && !Interrupted(); ++round) {
    figure.all_threads = std::max(figure.all_threads, probe::FlopsRoof(all, isa, kind, 0.005));
  }
  return figure;
}

Measured Measure(const DeviceCaps& caps) {
  Measured m;
  const auto all = Threads(caps.threads);
  for (const Isa isa : caps.isas) {
    m.flops.push_back(MeasureFlops(isa, probe::FlopsKind::kFmaF32, *all));
    m.clock_hz = std::max(m.clock_hz, m.flops.back().one_thread.clock_hz);
    if (isa == Isa::kAvx512Bf16) m.flops.push_back(MeasureFlops(isa, probe::FlopsKind::kDotBf16, *all));
    if (Interrupted()) return m;
  }
  const cases::Buffer memory(static_cast<std::size_t>(std::clamp<std::int64_t>(caps.l3_bytes * 8, 128 << 20, 1 << 30)));
  std::fill_n(memory.data(), memory.size(), std::byte{1});
  m.read_bytes = memory.size();
  m.pages = PageKind(memory.data(), memory.size());
  std::vector<int> counts = {1};
  if (caps.threads > 1) counts.push_back(caps.threads);
  for (const int threads : counts) {
    const auto executor = Threads(threads);
    probe::ReadRoof roof(*executor, caps.Best(), {{memory.data(), memory.size()}}, probe::ReadKind::kStreams);
    ReadFigure figure{threads, 0, roof.variant()};
    for (int round = 0; round < 5 && !Interrupted(); ++round) {
      figure.bytes_per_second = std::max(figure.bytes_per_second, roof.Run());
    }
    m.read.push_back(figure);
  }
  return m;
}

std::string IsaNames(const DeviceCaps& caps) {
  std::string names;
  for (const Isa isa : caps.isas) names += (names.empty() ? "" : " ") + std::string(Name(isa));
  return names;
}

// "NVIDIA A100-SXM4-80GB, sm_80, ..."; what hinders its kernels, on the same line.
std::string GpuText(const DeviceCaps& caps) {
  const GpuCaps& g = *caps.gpu;
  std::string text =
      fmt::format("{}, sm_{}, {} multiprocessors, {}, L2 {}, {:.0f} GB/s, f16 {:.0f} TFLOP/s (peaks)", caps.name, g.sm,
                  g.multiprocessors, Bytes(static_cast<double>(g.memory_bytes)),
                  Bytes(static_cast<double>(g.l2_bytes)), g.memory_gbps, g.tensor_f16_tflops);
  if (g.missing.empty()) return text;
  return text + "; no kernels: " + g.missing + (g.remedy.empty() ? "" : " -> " + g.remedy);
}

void PrintGpus() {
  const cuda::Status& status = cuda::WhyNoGpu();
  if (DeviceCaps::GpuCount() == 0) {
    const std::string remedy = status.remedy.empty() ? "" : " -> " + status.remedy;
    fmt::print("gpus      none: {}{}\n", status.ok ? "the CUDA driver does not describe them" : status.reason, remedy);
    return;
  }
  const cuda::NvrtcApi& nvrtc = cuda::Nvrtc();
  fmt::print("cuda      driver of CUDA {}, {}\n", cuda::VersionText(cuda::Driver().version),
             nvrtc.status.ok ? fmt::format("NVRTC {} ({})", nvrtc.VersionText(), nvrtc.path) : nvrtc.status.reason);
  for (int index = 0; index < DeviceCaps::GpuCount(); ++index) {
    fmt::print("cuda:{:<5}{}\n", index, GpuText(DeviceCaps::Gpu(index)));
  }
}

nlohmann::ordered_json GpusJson() {
  auto gpus = nlohmann::ordered_json::array();
  for (int index = 0; index < DeviceCaps::GpuCount(); ++index) {
    const DeviceCaps& caps = DeviceCaps::Gpu(index);
    const GpuCaps& g = *caps.gpu;
    gpus.push_back({{"index", index},
                    {"name", caps.name},
                    {"sm", g.sm},
                    {"multiprocessors", g.multiprocessors},
                    {"shared_per_block_bytes", g.shared_per_block_bytes},
                    {"l2_bytes", g.l2_bytes},
                    {"memory_bytes", g.memory_bytes},
                    {"memory_gbps", g.memory_gbps},
                    {"tensor_f16_tflops", g.tensor_f16_tflops},
                    {"f32_tflops", g.f32_tflops},
                    {"missing", g.missing}});
  }
  return gpus;
}

void PrintText(const DeviceCaps& caps, const Measured* m) {
  fmt::print("regard    {}\n", regard_version());
  fmt::print("cpu       {}\n", caps.name);
  fmt::print("isas      {}   (best: {})\n", IsaNames(caps), Name(caps.Best()));
  fmt::print("threads   {}\n", caps.threads);
  fmt::print("caches    L1 {}, L2 {} of one core, L3 {} shared\n", Bytes(static_cast<double>(caps.l1_bytes)),
             Bytes(static_cast<double>(caps.l2_bytes)), Bytes(static_cast<double>(caps.l3_bytes)));
  PrintGpus();
  if (!m) {
    fmt::print("roofs     not measured: regard info --measure\n");
    return;
  }
  fmt::print("clock     {:.2f} GHz (chain of dependent additions)\n\n", m->clock_hz / 1e9);
  TextTable flops({{"roof"},
                   {"isa"},
                   {"one thread", Align::kRight},
                   {"per cycle", Align::kRight},
                   {"pipes", Align::kRight},
                   {"of pipes x lanes x clock", Align::kRight},
                   {fmt::format("{} threads", caps.threads), Align::kRight}});
  for (const FlopsFigure& f : m->flops) {
    flops.Row({f.roof, Name(f.isa), fmt::format("{:.1f} GFLOP/s", f.one_thread.flops / 1e9),
               fmt::format("{:.2f}", f.one_thread.per_cycle), fmt::format("{}", f.one_thread.pipes),
               fmt::format("{:.1f} %", 100 * f.one_thread.fraction),
               fmt::format("{:.1f} GFLOP/s", f.all_threads / 1e9)});
  }
  fmt::print("{}\n", flops.Text());
  TextTable read({{"roof"}, {"threads", Align::kRight}, {"rate", Align::kRight}, {"best of 1 to 16 streams"}});
  for (const ReadFigure& r : m->read) {
    read.Row({"read", fmt::format("{}", r.threads), fmt::format("{:.1f} GB/s", r.bytes_per_second / 1e9), r.variant});
  }
  fmt::print("{}over {}, {}\n", read.Text(), Bytes(static_cast<double>(m->read_bytes)), m->pages);
}

void PrintJson(const DeviceCaps& caps, const Measured* m) {
  nlohmann::ordered_json json = {{"version", regard_version()}, {"cpu", caps.name}};
  json["isas"] = nlohmann::ordered_json::array();
  for (const Isa isa : caps.isas) json["isas"].push_back(Name(isa));
  json["best_isa"] = Name(caps.Best());
  json["threads"] = caps.threads;
  json["l1_bytes"] = caps.l1_bytes;
  json["l2_bytes"] = caps.l2_bytes;
  json["l3_bytes"] = caps.l3_bytes;
  json["gpus"] = GpusJson();
  json["gpus_missing"] = cuda::WhyNoGpu().reason;
  if (m) {
    json["clock_ghz"] = m->clock_hz / 1e9;
    json["flops_roofs"] = nlohmann::ordered_json::array();
    for (const FlopsFigure& f : m->flops) {
      json["flops_roofs"].push_back({{"roof", f.roof},
                                     {"isa", Name(f.isa)},
                                     {"gflops_one_thread", f.one_thread.flops / 1e9},
                                     {"per_cycle", f.one_thread.per_cycle},
                                     {"pipes", f.one_thread.pipes},
                                     {"percent_of_peak", 100 * f.one_thread.fraction},
                                     {"gflops_all_threads", f.all_threads / 1e9}});
    }
    json["read_roofs"] = nlohmann::ordered_json::array();
    for (const ReadFigure& r : m->read) {
      json["read_roofs"].push_back(
          {{"threads", r.threads}, {"gbps", r.bytes_per_second / 1e9}, {"variant", r.variant}, {"pages", m->pages}});
    }
  }
  fmt::print("{}\n", json.dump(2));
}

void Info(bool measure, bool json) {
  const DeviceCaps& caps = DeviceCaps::Host();
  Measured measured;
  if (measure) measured = Measure(caps);
  const Measured* m = measure ? &measured : nullptr;
  json ? PrintJson(caps, m) : PrintText(caps, m);
}

}  // namespace

void RegisterInfo(CLI::App& app, int&) {
  auto* command =
      app.add_subcommand("info", "This machine: CPU, instruction sets, caches, GPUs, and its measured roofs");
  auto measure = std::make_shared<bool>(false), json = std::make_shared<bool>(false);
  command->add_flag("--measure", *measure, "Measure clock, FMA and dot-product rates, and read bandwidth");
  command->add_flag("--json", *json, "As JSON");
  command->callback([measure, json] { Info(*measure, *json); });
}

}  // namespace regard::cli
