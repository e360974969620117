// Writes the translation units of the kernels that the emulated cases need, for the host compiler: the library's own
// text of each instance (src/cuda/instances.h), as NVRTC would get it, in a namespace of its own, so that one file
// holds many.
//   write_instances FOLDER FILES      writes FOLDER/instances_0.cc and so on, and only what changed
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "src/cuda/instances.h"
#include "tests/emulator/call_cases.h"
#include "tests/emulator/emulated_cases.h"

namespace regard::emulator {
namespace {

constexpr const char* kNamespace = "namespace regard::cuda {";

// One file: every include once, then the instances.
class Unit {
 public:
  void Add(const cuda::KernelInstance& instance, int number) {
    const std::string own = "regard::cuda::instance_" + std::to_string(number);
    body_ += "\n#undef REGARD_INSTANCE\n#define REGARD_INSTANCE \"" + instance.name + "\"\n";
    std::istringstream lines(instance.text);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("#include")) {
        includes_.insert(line);
      } else if (line == kNamespace) {
        body_ += "namespace " + own + " {\n";
      } else {
        body_ += line + "\n";
      }
    }
  }
  std::string Text() const {
    std::string text = "// Written by write_instances.\n";
    for (const std::string& include : includes_) text += include + "\n";
    return text + body_;
  }

 private:
  std::set<std::string> includes_;
  std::string body_;
};

bool Write(const std::string& path, const std::string& text) {
  std::ifstream old(path);
  if (old && std::string(std::istreambuf_iterator<char>(old), {}) == text) return true;
  return static_cast<bool>(std::ofstream(path) << text << std::flush);
}

int Run(const std::string& folder, int files) {
  std::map<std::string, cuda::KernelInstance> instances;
  for (cuda::KernelInstance& instance : CaseInstances()) instances.emplace(instance.name, std::move(instance));
  const auto add_calls = [&](const auto& calls) {
    for (const CallCase& c : calls) {
      for (cuda::KernelInstance& instance : cuda::InstancesFor(ParseProblem(c.problem), DeviceCaps::Known(c.gpu))) {
        instances.emplace(instance.name, std::move(instance));
      }
    }
  };
  add_calls(kCallCases);
  add_calls(kBackwardCases);
  std::vector<Unit> units(static_cast<std::size_t>(files));
  int number = 0;
  for (const auto& [name, instance] : instances) {
    units[static_cast<std::size_t>(number % files)].Add(instance, number);
    ++number;
  }
  for (int n = 0; n < files; ++n) {
    const std::string path = folder + "/instances_" + std::to_string(n) + ".cc";
    if (!Write(path, units[static_cast<std::size_t>(n)].Text())) {
      std::fprintf(stderr, "write_instances: cannot write %s\n", path.c_str());
      return 1;
    }
  }
  std::printf("write_instances: %d kernels in %d files\n", number, files);
  return 0;
}

}  // namespace
}  // namespace regard::emulator

int main(int argc, char** argv) {
  if (argc != 3 || std::atoi(argv[2]) < 1) {
    std::fprintf(stderr, "usage: write_instances FOLDER FILES\n");
    return 2;
  }
  return regard::emulator::Run(argv[1], std::atoi(argv[2]));
}
