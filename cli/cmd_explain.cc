// `regard explain CASE`: what would run and why; nothing is computed.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/case_words.h"
#include "cli/commands.h"
#include "cli/device_options.h"
#include "cli/mask_drawing.h"
#include "regard/plan.h"
#include "regard/status.h"
#include "src/backend/device_of.h"

namespace regard::cli {
namespace {

struct Options {
  std::vector<std::string> words;
  bool json = false;
  bool mask = false;
  bool no_measure = false;
  std::int64_t sequence = 0;
  std::string device_isa, device;
};

// The machine that the case is explained for.
DeviceCaps DeviceOf(const Options& options) {
  if (!options.device.empty()) {
    if (!options.device_isa.empty()) {
      throw Error("--device-isa", options.device_isa, "one of --device and --device-isa");
    }
    return DeviceByName("--device", options.device);
  }
  DeviceCaps caps = DeviceCaps::Host();
  const bool pretended = !options.device_isa.empty();
  if (pretended) caps.isas = IsasUpTo(ParseIsa("--device-isa", options.device_isa));
  // Figures of this machine would be wrong beside instructions that it lacks or hides.
  if (!options.no_measure && !pretended) MeasureQuickly(&caps);
  return caps;
}

void Explain(const Options& options) {
  const std::vector<std::string> texts = JoinCases(options.words);
  if (texts.size() != 1) throw Error("case", fmt::format("{} cases", texts.size()), "one case");
  const Problem p = ParseProblem(texts.front());
  Validate(p);
  const DeviceCaps caps = DeviceOf(options);
  const Selection selection = Select(p, caps);
  const Plan plan(p, selection);
  std::string mask;
  if (options.mask) mask = DrawMask(p, options.sequence, TerminalWidth());
  if (options.json) {
    auto json = nlohmann::ordered_json::parse(ExplainJson(p, caps, &plan, selection));
    if (options.mask) json["mask"] = mask;
    fmt::print("{}\n", json.dump(2));
    return;
  }
  std::string text = ExplainText(p, caps, &plan, selection);
  if (text.empty() || text.back() != '\n') text += '\n';
  fmt::print("{}", text);
  if (options.mask) fmt::print("\n{}", mask);
}

}  // namespace

void RegisterExplain(CLI::App& app, int&) {
  auto* command = app.add_subcommand("explain", "Which kernel a case gets, at what cost, and why not another");
  auto options = std::make_shared<Options>();
  command->add_option("case", options->words, "The case, as one quoted line or as words")
      ->required()
      ->type_name("CASE");
  command->add_flag("--json", options->json, "As JSON");
  command->add_flag("--mask", options->mask, "Draw the visible tiles of the score matrix");
  command->add_option("--sequence", options->sequence, "Sequence of the batch that --mask draws")
      ->capture_default_str();
  command->add_option(
      "--device-isa", options->device_isa,
      "Pretend that the CPU's best instruction set is this one (scalar, neon, avx2, avx512, avx512_bf16)");
  command->add_option("--device", options->device,
                      "Explain for this device: cpu, cuda, cuda:1, or a GPU by name, here or not: T4, A100, "
                      "\"RTX 4090\", H100")
      ->type_name("NAME");
  command->add_flag("--no-measure", options->no_measure,
                    "Use cautious figures for bandwidth and FMA rate: no probe runs");
  command->callback([options] { Explain(*options); });
}

}  // namespace regard::cli
