// One peer library as a child process: `PYTHON bench/peers/worker.py`, asked line by line (protocol: in that file).
// Every way in which a child can fail, a crash and a time-out among them, ends as a reason; none ends regard.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

namespace regard::cli {

struct PeerSettings {
  std::string python;            // interpreter that has the libraries; empty: no peers
  std::string worker;            // path of worker.py
  double run_seconds = 60;       // patience with one call
  double prepare_seconds = 300;  // patience with the preparation of one case, in which a peer tries its ways
};

class Peer {
 public:
  // `memory`: descriptor of the tensors that the child shares. Starts nothing yet.
  Peer(std::string name, int threads, int memory, const PeerSettings& settings);
  ~Peer();  // ends the child
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  const std::string& name() const { return name_; }
  const std::string& version() const { return version_; }  // of the library, once prepared
  const std::string& how() const { return how_; }          // which of its ways was the fastest
  const std::string& cannot() const { return cannot_; }    // why the last request failed; empty: it did not

  bool Prepare(const std::string& case_json);  // starts the child where there is none
  std::optional<double> Run(int count);        // seconds of `count` calls, as timed inside the child
  bool WriteOutput();                          // the last output, into the shared memory
  void Stop();                                 // ends the child, if any

 private:
  void Start();
  // The answer, with `word` and the blank after it cut off; nothing, and cannot_ set, for any other.
  std::optional<std::string> Ask(const std::string& request, const std::string& word, double patience_seconds);
  std::optional<std::string> ReadLine(double patience_seconds);
  std::string LastWords();  // ends the child and says how it died
  void Fail(const std::string& reason);

  std::string name_, version_, how_, cannot_;
  const PeerSettings settings_;
  int threads_, memory_;
  pid_t child_ = -1;
  int channel_ = -1;     // socket: the child's standard input and output
  int complaints_ = -1;  // what the child wrote to standard error
  std::string received_;
};

}  // namespace regard::cli
