#include "cli/sass_counts.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <utility>

#include "regard/status.h"

namespace regard::cli {
namespace {

// An opcode's first word, up to its first dot.
std::string GroupOf(std::string_view opcode) {
  constexpr std::pair<std::string_view, std::string_view> kGroups[] = {
      {"HMMA", "tensor"},   {"HGMMA", "tensor"}, {"IMMA", "tensor"},   {"QMMA", "tensor"},  {"OMMA", "tensor"},
      {"LDSM", "ldmatrix"}, {"LDS", "shared"},   {"STS", "shared"},    {"ATOMS", "shared"}, {"LDGSTS", "async"},
      {"LDG", "global"},    {"STG", "global"},   {"ATOMG", "global"},  {"RED", "global"},   {"LDL", "local"},
      {"STL", "local"},     {"MUFU", "exp2"},    {"FFMA", "f32"},      {"FMUL", "f32"},     {"FADD", "f32"},
      {"FMNMX", "f32"},     {"FMNMX3", "f32"},   {"FSEL", "f32"},      {"FSETP", "f32"}};
  const std::string_view word = opcode.substr(0, opcode.find('.'));
  for (const auto& [name, group] : kGroups) {
    if (word == name) return std::string(group);
  }
  return "other";
}

// The opcode of a line; "" where it has none.
std::string_view OpcodeOf(std::string_view line) {
  const std::size_t comment = line.find("/*"), end = line.find("*/");
  if (comment == line.npos || end == line.npos) return {};
  if (line.substr(0, comment).find_first_not_of(" \t") != line.npos) return {};
  const std::string_view address = line.substr(comment + 2, end - comment - 2);
  if (address.empty() || address.find_first_not_of("0123456789abcdef") != address.npos) return {};
  std::string_view rest = line.substr(end + 2);
  const auto skip_blanks = [&rest] { rest.remove_prefix(std::min(rest.find_first_not_of(" \t{"), rest.size())); };
  skip_blanks();
  if (rest.starts_with('@')) {  // a predicate
    rest.remove_prefix(std::min(rest.find_first_of(" \t"), rest.size()));
    skip_blanks();
  }
  return rest.substr(0, rest.find_first_of(" \t;"));
}

std::string FindDisassembler() {
  std::string folders = std::getenv("PATH") ? std::getenv("PATH") : "";
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const char* home = std::getenv(name)) folders += ":" + std::string(home) + "/bin";
  }
  std::istringstream words(folders);
  for (std::string folder; std::getline(words, folder, ':');) {
    const std::string path = folder + "/nvdisasm";
    // It goes into a command in quotes.
    if (!folder.empty() && path.find('\'') == path.npos && access(path.c_str(), X_OK) == 0) return path;
  }
  return {};
}

// A file of its own, removed at the end.
struct TemporaryFile {
  std::array<char, 32> path{"/tmp/regard_cubin_XXXXXX"};
  int file = mkstemp(path.data());
  TemporaryFile() = default;
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (file < 0) return;
    close(file);
    unlink(path.data());
  }
};

}  // namespace

InstructionCounts CountInstructions(std::string_view listing) {
  InstructionCounts counts;
  while (!listing.empty()) {
    const std::size_t end = std::min(listing.find('\n'), listing.size());
    const std::string_view opcode = OpcodeOf(listing.substr(0, end));
    if (!opcode.empty()) ++counts[GroupOf(opcode)];
    listing.remove_prefix(std::min(end + 1, listing.size()));
  }
  return counts;
}

const std::string& Disassembler() {
  static const std::string path = FindDisassembler();
  return path;
}

InstructionCounts CountOfCubin(const std::string& cubin) {
  if (Disassembler().empty()) return {};
  const TemporaryFile copy;
  if (copy.file < 0 || write(copy.file, cubin.data(), cubin.size()) != static_cast<ssize_t>(cubin.size())) {
    throw Error("nvdisasm", std::strerror(errno), "a file in /tmp for the cubin");
  }
  const std::string command = "'" + Disassembler() + "' -c " + copy.path.data();
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) throw Error("nvdisasm", std::strerror(errno), "a process for " + Disassembler());
  std::string listing;
  std::array<char, 1 << 14> buffer;
  for (std::size_t n = 0; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) listing.append(buffer.data(), n);
  const int status = pclose(pipe);
  if (status != 0) {
    throw Error("nvdisasm", Disassembler() + " failed",
                "a disassembler that reads cubins of this NVRTC, or none on the PATH");
  }
  return CountInstructions(listing);
}

}  // namespace regard::cli
