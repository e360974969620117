// `regard bench --peers`: other attention libraries on the same inputs, turn about with regard, outputs compared.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/bench_case.h"
#include "cli/peer_process.h"

namespace regard::cli {

struct PeerFigure {
  std::string name, version;
  std::string how;         // which of the library's ways was the fastest
  double median_ms = 0;    // of one call; 0 where it cannot
  double max_error = 0;    // largest absolute difference of its output from regard's
  std::string cannot;      // why there is no figure for this case
};

struct PeerComparison {
  std::string text;        // the case
  std::string kernel;      // regard's
  double regard_ms = 0;    // median over the same rounds; 0: interrupted before the first
  std::vector<PeerFigure> peers;
  const PeerFigure* Best() const;  // the fastest; null where none has a figure
};

// torch-sdpa, ort-gqa, ort-mha, onednn-graph.
std::vector<std::string> PeerNames();

// What the option --peers asks for: "" for none, "auto" for build/peers-venv in the source tree, else an interpreter.
// Throws Error where there is none, or no worker in the source tree.
PeerSettings FindPeers(const std::string& option);

// Compares regard and every peer over each case; stops early once Interrupted(). Children live from case to case.
// Nothing without an interpreter.
std::vector<PeerComparison> MeasurePeers(const std::vector<std::string>& cases, const BenchSettings& settings,
                                         const PeerSettings& peers);

// A table, and under it versions and the reasons of those that cannot; empty for no comparison.
std::string PeersText(const std::vector<PeerComparison>& comparisons);

// Adds "peers" and "regard_beside_peers_ms" to the objects of `results` whose "case" was compared.
void AddPeers(const std::vector<PeerComparison>& comparisons, nlohmann::ordered_json* results);

}  // namespace regard::cli
