// The emulated device's memory: allocations at addresses that no host memory has, so that only a checked access reaches
// them and a raw one faults. Every allocation has 64 GiB of addresses to itself, which are never used again: an access
// past its end, before its begin, or after its release is told from a right one by arithmetic.
// Owns the bytes. Allocation and release must not run beside a launch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace regard::emulator {

class DeviceMemory {
 public:
  // Addresses of 2^48 and more: no process has any below 2^63.
  static constexpr std::uint64_t kFirst = std::uint64_t{1} << 48;
  static constexpr int kSlotBits = 36;
  static constexpr std::uint64_t kLead = std::uint64_t{1} << 30;  // addresses of the slot before the allocation

  // Of the process, made on first use.
  static DeviceMemory& Get();

  // `bytes` > 0, all 0xff (floats: NaN); 512-byte aligned. `name` appears in findings. Throws std::bad_alloc.
  std::uint64_t Allocate(std::size_t bytes, std::string name = {});
  // False where `address` is not the begin of a live allocation.
  bool Release(std::uint64_t address);
  // Host memory of [address, address + bytes); null where that is not inside one live allocation.
  std::byte* Find(std::uint64_t address, std::size_t bytes) const {
    const Slot* slot = SlotOf(address);
    if (!slot || !slot->live) return nullptr;
    const std::uint64_t offset = address - slot->begin;
    return offset <= slot->bytes && bytes <= slot->bytes - offset ? slot->data.get() + offset : nullptr;
  }
  // Begin and size of the allocation whose addresses hold `address`; false where there is none.
  bool Range(std::uint64_t address, std::uint64_t& begin, std::size_t& bytes) const;
  // Why Find gave null, and whether the allocation was released.
  std::string Explain(std::uint64_t address, std::size_t bytes, bool& released) const;
  std::size_t live() const { return live_; }  // allocations
  std::size_t live_bytes() const { return live_bytes_; }

 private:
  struct Free {
    void operator()(std::byte* data) const { ::operator delete[](data, std::align_val_t{64}); }
  };
  struct Slot {
    std::uint64_t begin = 0;
    std::size_t bytes = 0;
    bool live = false;
    std::unique_ptr<std::byte[], Free> data;
    std::string name;
  };
  const Slot* SlotOf(std::uint64_t address) const {
    const std::uint64_t n = (address - kFirst) >> kSlotBits;  // addresses below kFirst wrap to huge numbers
    return n < slots_.size() ? &slots_[n] : nullptr;
  }

  std::vector<Slot> slots_;
  std::size_t live_ = 0, live_bytes_ = 0;
};

}  // namespace regard::emulator
