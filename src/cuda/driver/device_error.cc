#include "src/cuda/driver/device_error.h"

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "regard/status.h"
#include "src/cuda/driver/context.h"
#include "src/cuda/driver/driver_api.h"
#include "src/cuda/kernels/base/params.h"

namespace regard::cuda {
namespace {

struct Words {
  ErrorBit bit;
  const char* text;
};
constexpr Words kWords[] = {
    {kBadSeqlensQ, "cu_seqlens_q or seqused_q is out of order, out of range or above the plan's bound"},
    {kBadSeqlensKv, "cu_seqlens_kv, seqused_kv, seqlens_kv or cache_seqlens is out of order, out of range or above the "
                    "plan's bound"},
    {kBadPage, "block_table or kv_indices names a page that is not there"},
    {kBadCacheRow, "cache_batch_idx names a row that is not there"},
    {kBadIndptr, "kv_indptr or kv_last_page_len is out of order or out of range"},
    {kBadLeftpad, "leftpad is outside [0, seq_kv]"},
    {kBadAppend, "an append does not fit into the cache"},
    {kBadRotary, "a rotary position is outside its tables"},
};

}  // namespace

std::string DeviceErrorText(unsigned bits) {
  std::string text;
  for (const Words& words : kWords) {
    if ((bits & words.bit) == 0) continue;
    text += (text.empty() ? "" : "; ") + std::string(words.text);
    bits &= ~static_cast<unsigned>(words.bit);
  }
  if (bits != 0) text += (text.empty() ? "" : "; ") + std::string("unknown bits ") + std::to_string(bits);
  return text;
}

DeviceErrorFlag& DeviceErrorFlag::Of(int device) {
  // Never destroyed: threads may still plan and launch while the process ends.
  static auto& mutex = *new std::mutex;
  static auto& flags = *new std::map<int, std::unique_ptr<DeviceErrorFlag>>;
  const std::lock_guard lock(mutex);
  std::unique_ptr<DeviceErrorFlag>& flag = flags[device];
  if (!flag) flag = std::make_unique<DeviceErrorFlag>(device);
  return *flag;
}

// The host's memory is never freed: kernels may still be running when the process ends.
DeviceErrorFlag::DeviceErrorFlag(int device) : device_(device) {
  const ContextScope scope(device);
  const DriverApi& api = Driver();
  void* host = nullptr;
  constexpr unsigned kFlags = abi::CU_MEMHOSTALLOC_PORTABLE | abi::CU_MEMHOSTALLOC_DEVICEMAP;
  CheckResult(api.mem_host_alloc(&host, sizeof(unsigned), kFlags), "cuMemHostAlloc");
  host_ = static_cast<unsigned*>(host);
  *host_ = 0;
  DevicePointer address = 0;
  CheckResult(api.mem_host_get_device_pointer(&address, host, 0), "cuMemHostGetDevicePointer");
  device_pointer_ = reinterpret_cast<unsigned*>(static_cast<std::uintptr_t>(address));
}

unsigned DeviceErrorFlag::Read() const noexcept { return __atomic_load_n(host_, __ATOMIC_ACQUIRE); }

unsigned DeviceErrorFlag::Take() noexcept {
  return Read() == 0 ? 0 : __atomic_exchange_n(host_, 0u, __ATOMIC_ACQ_REL);
}

void DeviceErrorFlag::Check() {
  const unsigned bits = Take();
  if (bits == 0) return;
  const std::string device = "cuda:" + std::to_string(device_);
  throw Error("cuda.tables", device + ": an earlier launch met bad entries and skipped them: " + DeviceErrorText(bits),
              "tables and lengths within the plan's bounds");
}

}  // namespace regard::cuda
