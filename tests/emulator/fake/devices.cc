// Read once, when the driver is asked for the first time.
#include "tests/emulator/fake/devices.h"

#include <algorithm>
#include <cstdlib>

namespace regard::emulator::fake {

const std::vector<DeviceCaps>& Devices() {
  static const std::vector<DeviceCaps> devices = [] {
    const char* listed = std::getenv("FAKE_CUDA_GPUS");
    std::string names = listed && *listed ? listed : "A100";
    std::vector<DeviceCaps> found;
    for (std::size_t begin = 0; begin <= names.size();) {
      const std::size_t end = std::min(names.find(',', begin), names.size());
      found.push_back(DeviceCaps::Known(names.substr(begin, end - begin)));
      begin = end + 1;
    }
    return found;
  }();
  return devices;
}

}  // namespace regard::emulator::fake
