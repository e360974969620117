#include "cli/peers.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <thread>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/peer_memory.h"
#include "cli/text_table.h"
#include "regard/plan.h"
#include "regard/status.h"
#include "src/cases/buffer.h"
#include "src/cases/cases.h"

namespace regard::cli {
namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string InSourceTree(const std::string& path) { return std::string(REGARD_SOURCE_DIR) + "/" + path; }

// Outputs further apart than this, relative to max(1, |ours|), are not of the same computation: several times what
// libraries lose that round scores and probabilities to the type. Gradients lose more: dP - delta cancels, and torch rounds
// the gradient of each repeated head to the type before it adds them up (off by 0.043 in bf16 with 512 causal queries).
double LooseBound(const Problem& p) {
  const double bound = p.dtype == DType::kF32 ? 1e-3 : p.dtype == DType::kF16 ? 5e-3 : 4e-2;
  return p.phase == Phase::kBackward ? 3 * bound : bound;
}

constexpr double kShortestTurn = 5e-4;  // calls shorter than this are timed in bundles
int BundleOf(double seconds) { return std::clamp(static_cast<int>(std::ceil(kShortestTurn / seconds)), 1, 1000); }

// Before every turn: the OpenMP threads of the one before stop spinning (GCC's runtime: about a millisecond).
void Settle() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

// regard's side: the same calls as bench_case.cc makes.
class Own {
 public:
  Own(const std::string& text, const BenchSettings& settings)
      : executor_(MakeExecutor(ExecutorKind::kOpenMp, settings.threads)),
        case_(cases::MakeCase(ParseProblem(text))),
        selection_(settings.kernel.empty()
                       ? Select(case_.problem(), DeviceCaps::Host())
                       : Select(case_.problem(), DeviceCaps::Host(), KernelChoice{{settings.kernel}, {}})),
        plan_(case_.problem(), selection_, executor_.get()),
        memory_(plan_.workspace_bytes()) {}

  const Problem& problem() const { return case_.problem(); }
  const BackwardArgs& call() const { return case_.call(); }
  const std::string& kernel() const { return selection_.kernel; }

  // Seconds of `count` launches.
  double Run(int count) {
    const auto start = Clock::now();
    for (int i = 0; i < count; ++i) cases::LaunchCall(plan_, case_.call(), {memory_.data(), memory_.size()});
    return SecondsSince(start);
  }

 private:
  std::unique_ptr<Executor> executor_;
  cases::Case case_;
  Selection selection_;
  Plan plan_;
  cases::Buffer memory_;
};

// A peer that is ready for the case, and what it took so far.
struct Runner {
  Peer* peer;
  PeerFigure* figure;
  int bundle = 1;
  std::vector<double> seconds;
};

// Gets the peer ready and compares its first output; says in the figure why not. True: it may be timed.
bool MakeReady(Runner* runner, const std::string& case_json, PeerMemory* memory, const Own& own) {
  Peer& peer = *runner->peer;
  PeerFigure& figure = *runner->figure;
  memory->PoisonResults();
  std::optional<double> took;
  const bool ready = peer.Prepare(case_json) && (took = peer.Run(1)) && peer.WriteOutput();
  figure.version = peer.version();
  figure.how = peer.how();
  figure.cannot = peer.cannot();
  if (!ready) return false;
  runner->bundle = BundleOf(*took);
  const std::vector<TensorView> results = ResultsOf(own.problem(), own.call());
  figure.max_error = memory->DifferenceFrom(results);
  const double bound = LooseBound(own.problem()), error = memory->RelativeDifferenceFrom(results);
  if (!(error <= bound)) {
    figure.cannot = fmt::format("its output is wrong: off by {:.1e}, more than {:.0e}", error, bound);
    return false;
  }
  return true;
}

void TakeTurns(Own* own, std::vector<Runner>* runners, const BenchSettings& settings, PeerComparison* result) {
  constexpr int kLeastRounds = 3, kMostRounds = 2000;
  constexpr double kSlowerPeers = 10;  // peers may take this many times regard's share before the rounds end
  const int rounds = settings.repeat > 0 ? settings.repeat : kMostRounds;
  const int bundle = BundleOf(own->Run(1));
  std::vector<double> seconds;
  double spent = 0;
  const auto begin = Clock::now();
  for (int round = 0; round < rounds && !Interrupted(); ++round) {
    const bool enough = spent >= settings.min_seconds || SecondsSince(begin) > kSlowerPeers * settings.min_seconds;
    if (settings.repeat == 0 && round >= kLeastRounds && enough) break;
    Settle();
    seconds.push_back(own->Run(bundle) / bundle);
    spent += seconds.back() * bundle;
    for (Runner& runner : *runners) {
      if (!runner.figure->cannot.empty()) continue;
      Settle();
      if (const auto took = runner.peer->Run(runner.bundle)) {
        runner.seconds.push_back(*took / runner.bundle);
      } else {
        runner.figure->cannot = runner.peer->cannot();
      }
    }
  }
  result->regard_ms = Quantile(seconds, 0.5) * 1e3;
  for (Runner& runner : *runners) {
    if (runner.figure->cannot.empty()) runner.figure->median_ms = Quantile(runner.seconds, 0.5) * 1e3;
  }
}

PeerComparison MeasureOne(const std::string& text, const BenchSettings& settings, PeerMemory* memory,
                          std::vector<std::unique_ptr<Peer>>* peers) {
  PeerComparison result;
  result.text = text;
  Own own(text, settings);
  result.kernel = own.kernel();
  own.Run(1);
  const std::string why = WhyNoPeers(own.problem());
  for (const auto& peer : *peers) result.peers.push_back({peer->name(), peer->version(), "", 0, 0, why});
  std::vector<Runner> runners;
  if (why.empty()) {
    const std::string case_json = memory->Fill(own.problem(), own.call());
    for (std::size_t i = 0; i < peers->size() && !Interrupted(); ++i) {
      Runner runner{(*peers)[i].get(), &result.peers[i], 1, {}};
      if (MakeReady(&runner, case_json, memory, own)) runners.push_back(std::move(runner));
    }
  }
  if (!Interrupted()) TakeTurns(&own, &runners, settings, &result);
  return result;
}

}  // namespace

const PeerFigure* PeerComparison::Best() const {
  const PeerFigure* best = nullptr;
  for (const PeerFigure& peer : peers) {
    if (peer.cannot.empty() && peer.median_ms > 0 && (!best || peer.median_ms < best->median_ms)) best = &peer;
  }
  return best;
}

std::vector<std::string> PeerNames() { return {"torch-sdpa", "ort-gqa", "ort-mha", "onednn-graph"}; }

PeerSettings FindPeers(const std::string& option) {
  PeerSettings peers;
  if (option.empty()) return peers;
  peers.python = option == "auto" ? InSourceTree("build/peers-venv/bin/python") : option;
  if (access(peers.python.c_str(), X_OK) != 0 || std::filesystem::is_directory(peers.python)) {
    throw Error("--peers", option, "a Python interpreter with the peers; bench/peers/setup makes the one of 'auto'");
  }
  peers.worker = InSourceTree("bench/peers/worker.py");
  if (access(peers.worker.c_str(), R_OK) != 0) throw Error("--peers", option, "the sources, for " + peers.worker);
  return peers;
}

std::vector<PeerComparison> MeasurePeers(const std::vector<std::string>& cases, const BenchSettings& settings,
                                         const PeerSettings& found) {
  if (found.python.empty()) return {};
  PeerMemory memory;
  std::vector<std::unique_ptr<Peer>> peers;
  for (const std::string& name : PeerNames()) {
    peers.push_back(std::make_unique<Peer>(name, settings.threads, memory.descriptor(), found));
  }
  std::vector<PeerComparison> comparisons;
  for (const std::string& text : cases) {
    if (Interrupted()) break;
    PeerComparison comparison = MeasureOne(text, settings, &memory, &peers);
    if (comparison.regard_ms > 0) comparisons.push_back(std::move(comparison));
  }
  return comparisons;
}

std::string PeersText(const std::vector<PeerComparison>& comparisons) {
  if (comparisons.empty()) return {};
  std::vector<TextTable::Column> columns = {{"regard ms", Align::kRight}};
  for (const std::string& name : PeerNames()) columns.push_back({name, Align::kRight});
  columns.insert(columns.end(), {{"best peer"}, {"regard is", Align::kRight}, {"case"}});
  TextTable table(columns);
  std::vector<std::string> notes;
  const auto note = [&](const std::string& line) {
    if (std::find(notes.begin(), notes.end(), line) == notes.end()) notes.push_back(line);
  };
  for (const PeerComparison& c : comparisons) {
    std::vector<std::string> row = {fmt::format("{:.3f}", c.regard_ms)};
    for (const PeerFigure& peer : c.peers) {
      row.push_back(peer.cannot.empty() ? fmt::format("{:.3f}", peer.median_ms) : "-");
      if (!peer.version.empty()) note(fmt::format("{}: {}", peer.name, peer.version));
    }
    const PeerFigure* best = c.Best();
    row.push_back(best ? best->name : "-");
    row.push_back(best ? fmt::format("{:.2f} x as fast", best->median_ms / c.regard_ms) : "-");
    row.push_back(c.text);
    table.Row(std::move(row));
  }
  for (const PeerComparison& c : comparisons) {
    for (const PeerFigure& peer : c.peers) {
      if (!peer.cannot.empty()) note(fmt::format("{} cannot: {}", peer.name, peer.cannot));
    }
  }
  std::string text = "\nregard and its peers, turn about on the same inputs; milliseconds a call, outputs compared.\n";
  text += table.Text();
  for (const std::string& line : notes) text += line + "\n";
  return text;
}

void AddPeers(const std::vector<PeerComparison>& comparisons, nlohmann::ordered_json* results) {
  for (nlohmann::ordered_json& result : *results) {
    for (const PeerComparison& c : comparisons) {
      if (result["case"] != c.text) continue;
      auto peers = nlohmann::ordered_json::array();
      for (const PeerFigure& p : c.peers) {
        nlohmann::ordered_json median, error, cannot;  // null: does not apply
        if (p.cannot.empty()) median = p.median_ms, error = p.max_error;
        if (!p.cannot.empty()) cannot = p.cannot;
        peers.push_back({{"name", p.name},
                         {"version", p.version},
                         {"how", p.how},
                         {"median_ms", median},
                         {"max_error", error},
                         {"cannot", cannot}});
      }
      result["regard_beside_peers_ms"] = c.regard_ms;
      result["peers"] = peers;
      break;
    }
  }
}

}  // namespace regard::cli
