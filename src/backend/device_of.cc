#include "src/backend/device_of.h"

#include <charconv>

namespace regard {

DeviceCaps DeviceByName(const std::string& field, const std::string& name) {
  if (name == "cpu") return DeviceCaps::Host();
  if (name == "cuda") return DeviceCaps::Gpu(0);
  if (name.starts_with("cuda:")) {
    int index = 0;
    const char *begin = name.data() + 5, *end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(begin, end, index);
    if (error == std::errc() && stop == end && begin != end) return DeviceCaps::Gpu(index);
    throw Error(field, name, "cuda:0, cuda:1 and so on");
  }
  try {
    return DeviceCaps::Known(name);
  } catch (const Error& e) {
    throw Error(field, name, "cpu, cuda, cuda:N or " + e.expected());
  }
}

}  // namespace regard
