#include <charconv>

#include "regard/status.h"
#include "src/cuda/driver/instance.h"

namespace regard::cuda {

Arch ParseArch(const std::string& field, const std::string& text) {
  std::string_view rest = text;
  if (rest.starts_with("sm_")) rest.remove_prefix(3);
  Arch arch;
  const auto [stop, error] = std::from_chars(rest.data(), rest.data() + rest.size(), arch.sm);
  const std::string_view suffix(stop, static_cast<std::size_t>(rest.data() + rest.size() - stop));
  arch.specific = suffix == "a";
  if (error != std::errc() || arch.sm < 10 || arch.sm > 999 || !(suffix.empty() || arch.specific)) {
    throw Error(field, text, "an architecture such as sm_80, sm_90 or sm_90a");
  }
  return arch;
}

}  // namespace regard::cuda
