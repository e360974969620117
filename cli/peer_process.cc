#include "cli/peer_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.h"

namespace regard::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMemoryInChild = 3;  // the descriptor under which the child finds the shared tensors

// This process's environment with the thread count, and without spinning between calls, when others are measured.
std::vector<std::string> ChildEnvironment(int threads) {
  const std::vector<std::pair<std::string, std::string>> own = {{"OMP_NUM_THREADS", std::to_string(threads)},
                                                                {"OMP_WAIT_POLICY", "passive"},
                                                                {"KMP_BLOCKTIME", "0"},
                                                                {"GOMP_SPINCOUNT", "0"},
                                                                {"PYTHONUNBUFFERED", "1"}};
  std::vector<std::string> all;
  for (char** entry = environ; *entry; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    if (std::none_of(own.begin(), own.end(), [&](const auto& o) { return o.first == name; })) all.push_back(text);
  }
  for (const auto& [name, value] : own) all.push_back(name + "=" + value);
  return all;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& s : strings) pointers.push_back(s.data());
  pointers.push_back(nullptr);
  return pointers;
}

void Close(int* descriptor) {
  if (*descriptor >= 0) close(*descriptor);
  *descriptor = -1;
}

// What lies in the last line of a file that is not blank.
std::string LastLine(int file) {
  std::string text(4096, '\0');
  const off_t size = lseek(file, 0, SEEK_END);
  if (size <= 0) return {};
  const ssize_t got = pread(file, text.data(), text.size(), std::max<off_t>(0, size - static_cast<off_t>(text.size())));
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text.substr(text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);
}

}  // namespace

Peer::Peer(std::string name, int threads, int memory, const PeerSettings& settings)
    : name_(std::move(name)), settings_(settings), threads_(threads), memory_(memory) {}

Peer::~Peer() { Stop(); }

void Peer::Start() {
  received_.clear();
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return Fail(fmt::format("no socket for it: {}", std::strerror(errno)));
  }
  channel_ = ends[0];
  complaints_ = memfd_create("regard peer stderr", MFD_CLOEXEC);
  std::vector<std::string> words = {settings_.python, settings_.worker, "--peer", name_, "--threads",
                                    std::to_string(threads_), "--memory", std::to_string(kMemoryInChild)};
  std::vector<std::string> environment = ChildEnvironment(threads_);
  const std::vector<char*> argv = Pointers(words), envp = Pointers(environment);
  const pid_t parent = getpid();
  child_ = fork();
  if (child_ == 0) {
    // Only calls that are safe after a fork of a process with threads. The child goes when regard goes.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    // Copied away first: descriptor 0 to 3 may be among those to be placed there.
    const int channel = fcntl(ends[1], F_DUPFD, 10), memory = fcntl(memory_, F_DUPFD, 10);
    const int complaints = fcntl(complaints_, F_DUPFD, 10);
    if (dup2(channel, 0) < 0 || dup2(channel, 1) < 0 || dup2(complaints, 2) < 0 || dup2(memory, kMemoryInChild) < 0) {
      _exit(127);
    }
    for (const int copy : {channel, memory, complaints}) close(copy);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  close(ends[1]);
  if (child_ < 0) Fail(fmt::format("no process for it: {}", std::strerror(errno)));
}

void Peer::Stop() {
  if (child_ > 0) {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  child_ = -1;
  Close(&channel_);
  Close(&complaints_);
}

std::string Peer::LastWords() {
  const std::string last = LastLine(complaints_);
  int status = 0;
  // Its end of the socket is closed; a moment lets it finish dying by itself, so that its own cause is seen.
  bool gone = false;
  for (int i = 0; i < 50 && !gone; ++i) {
    gone = waitpid(child_, &status, WNOHANG) == child_;
    if (!gone) poll(nullptr, 0, 20);
  }
  if (gone) child_ = -1;
  Stop();
  if (gone && WIFSIGNALED(status)) return fmt::format("its process ended with signal {}", WTERMSIG(status));
  const std::string end = gone ? fmt::format("its process ended with status {}", WEXITSTATUS(status))
                               : std::string("its process closed its output");
  return last.empty() ? end : end + ": " + last;
}

void Peer::Fail(const std::string& reason) {
  cannot_ = reason;
  Stop();
}

std::optional<std::string> Peer::ReadLine(double patience_seconds) {
  const auto deadline = Clock::now() + std::chrono::duration<double>(patience_seconds);
  for (;;) {
    const std::size_t end = received_.find('\n');
    if (end != std::string::npos) {
      std::string line = received_.substr(0, end);
      received_.erase(0, end + 1);
      return line;
    }
    if (Interrupted()) {
      Fail("interrupted");
      return std::nullopt;
    }
    if (Clock::now() >= deadline) {
      Fail(fmt::format("no answer within {:g} s", patience_seconds));
      return std::nullopt;
    }
    pollfd wait = {channel_, POLLIN, 0};
    if (poll(&wait, 1, 100) <= 0) continue;
    char buffer[4096];
    const ssize_t got = recv(channel_, buffer, sizeof(buffer), 0);
    if (got > 0) {
      received_.append(buffer, static_cast<std::size_t>(got));
    } else if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
      cannot_ = LastWords();
      return std::nullopt;
    }
  }
}

std::optional<std::string> Peer::Ask(const std::string& request, const std::string& word, double patience_seconds) {
  cannot_.clear();
  if (child_ < 0) Start();
  if (!cannot_.empty()) return std::nullopt;
  const std::string line = request + "\n";
  // A child that is gone shows when its answer is read.
  [[maybe_unused]] const ssize_t sent = send(channel_, line.data(), line.size(), MSG_NOSIGNAL);
  const std::optional<std::string> answer = ReadLine(patience_seconds);
  if (!answer) return std::nullopt;
  const std::size_t blank = std::min(answer->find(' '), answer->size());
  const std::string first = answer->substr(0, blank);
  const std::string rest = blank < answer->size() ? answer->substr(blank + 1) : std::string();
  if (first == word) return rest;
  if (first == "cannot" && !rest.empty()) {
    cannot_ = rest;
  } else {
    Fail(fmt::format("answered '{:.60}' where '{}' was expected", *answer, word));
  }
  return std::nullopt;
}

bool Peer::Prepare(const std::string& case_json) {
  how_.clear();
  const auto answer = Ask("case " + case_json, "ready", settings_.prepare_seconds);
  if (!answer) return false;
  const auto about = nlohmann::json::parse(*answer, nullptr, false);
  if (!about.is_object()) {
    Fail(fmt::format("answered 'ready {:.60}' where JSON was expected", *answer));
    return false;
  }
  version_ = about.value("version", "");
  how_ = about.value("how", "");
  return true;
}

std::optional<double> Peer::Run(int count) {
  const auto answer = Ask(fmt::format("run {}", count), "took", settings_.run_seconds);
  if (!answer) return std::nullopt;
  char* end = nullptr;
  const double seconds = std::strtod(answer->c_str(), &end);
  if (end == answer->c_str() || !(seconds > 0)) {
    Fail(fmt::format("answered 'took {:.60}' where seconds were expected", *answer));
    return std::nullopt;
  }
  return seconds;
}

bool Peer::WriteOutput() { return Ask("output", "done", settings_.run_seconds).has_value(); }

}  // namespace regard::cli
