// Reads REGARD_* variables, with a warning for each one that cannot be honoured.

#include "src/core/env.h"

#include <sched.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "src/core/suggest.h"

namespace regard {
namespace {

constexpr std::string_view kPrefix = "REGARD_";
constexpr std::array<std::string_view, 8> kVariables = {
    "REGARD_BACKENDS", "REGARD_CPU_ISA", "REGARD_THREADS",    "REGARD_TUNE",
    "REGARD_LIBCUDA",  "REGARD_NVRTC",   "REGARD_CUDA_CACHE", "REGARD_CUDA_CACHE_BYTES"};
constexpr std::array<Isa, 5> kIsas = {Isa::kScalar, Isa::kNeon, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

std::string Join(std::span<const std::string_view> words) {
  std::string text;
  for (const std::string_view word : words) text += (text.empty() ? "" : ", ") + std::string(word);
  return text;
}

// " (nearest: avx2)", or "" where nothing is near.
std::string Hint(std::string_view word, std::span<const std::string_view> known) {
  const std::string nearest = Nearest(word, known);
  return nearest.empty() ? "" : " (nearest: " + nearest + ")";
}

void WarnBadValue(std::string* warnings, std::string_view name, std::string_view value, const std::string& expected) {
  *warnings += "regard: " + std::string(name) + "=" + std::string(value) + " is ignored; expected " + expected + "\n";
}

std::optional<Isa> ParseIsa(std::string_view value, std::string* warnings) {
  std::array<std::string_view, kIsas.size()> names;
  for (std::size_t i = 0; i < kIsas.size(); ++i) {
    names[i] = Name(kIsas[i]);
    if (names[i] == value) return kIsas[i];
  }
  WarnBadValue(warnings, "REGARD_CPU_ISA", value, "one of " + Join(names) + Hint(value, names));
  return std::nullopt;
}

std::optional<int> ParseThreads(std::string_view value, std::string* warnings) {
  int threads = 0;
  const char* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, threads);
  if (error == std::errc() && stop == end && threads >= 1 && threads <= kMaxThreads) return threads;
  WarnBadValue(warnings, "REGARD_THREADS", value, "a whole number from 1 to " + std::to_string(kMaxThreads));
  return std::nullopt;
}

std::optional<std::int64_t> ParseBytes(std::string_view name, std::string_view value, std::string* warnings) {
  std::int64_t bytes = 0;
  const char* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, bytes);
  if (error == std::errc() && stop == end && bytes >= 0) return bytes;
  WarnBadValue(warnings, name, value, "a whole number of bytes, 0 or more");
  return std::nullopt;
}

std::vector<std::string> ParseBackends(std::string_view value, std::string* warnings) {
  std::vector<std::string> patterns;
  for (std::string_view rest = value;;) {
    const std::size_t comma = rest.find(',');
    const std::string_view pattern = rest.substr(0, comma);
    if (pattern.empty()) {
      WarnBadValue(warnings, "REGARD_BACKENDS", value,
                   "kernel names or prefixes with commas between, as in cpu.avx2,reference");
      return {};
    }
    patterns.emplace_back(pattern);
    if (comma == std::string_view::npos) return patterns;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace

EnvSettings ParseEnv(char** environment, std::string* warnings) {
  EnvSettings settings;
  for (char** entry = environment; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (!text.starts_with(kPrefix)) continue;
    const std::size_t equals = text.find('=');
    const std::string_view name = text.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? std::string_view() : text.substr(equals + 1);
    if (name == "REGARD_BACKENDS") {
      settings.backends = ParseBackends(value, warnings);
    } else if (name == "REGARD_CPU_ISA") {
      settings.cpu_isa = ParseIsa(value, warnings);
    } else if (name == "REGARD_THREADS") {
      settings.threads = ParseThreads(value, warnings);
    } else if (name == "REGARD_LIBCUDA") {
      settings.libcuda = value;
    } else if (name == "REGARD_NVRTC") {
      settings.nvrtc = value;
    } else if (name == "REGARD_CUDA_CACHE") {
      settings.cuda_cache = value;
    } else if (name == "REGARD_CUDA_CACHE_BYTES") {
      settings.cuda_cache_bytes = ParseBytes(name, value, warnings);
    } else if (name != "REGARD_TUNE") {
      *warnings += "regard: unknown environment variable " + std::string(name) + " is ignored; known ones are " +
                   Join(kVariables) + Hint(name, kVariables) + "\n";
    }
  }
  return settings;
}

const EnvSettings& Env() {
  static const EnvSettings settings = [] {
    std::string warnings;
    EnvSettings parsed = ParseEnv(::environ, &warnings);
    if (!warnings.empty()) std::fputs(warnings.c_str(), stderr);
    return parsed;
  }();
  return settings;
}

std::string TuneVariable() {
  const char* text = std::getenv("REGARD_TUNE");
  return text == nullptr ? "" : text;
}

int AvailableCpus() noexcept {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
  // More CPUs than cpu_set_t holds.
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online < 1 ? 1 : online > kMaxThreads ? kMaxThreads : static_cast<int>(online);
}

int DefaultThreads(const EnvSettings& settings) noexcept { return settings.threads.value_or(AvailableCpus()); }

}  // namespace regard
