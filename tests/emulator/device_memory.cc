// A slot of addresses for each allocation; released ones keep theirs for good.
#include "tests/emulator/device_memory.h"

#include <cstring>
#include <utility>

namespace regard::emulator {

DeviceMemory& DeviceMemory::Get() {
  static DeviceMemory memory;
  return memory;
}

std::uint64_t DeviceMemory::Allocate(std::size_t bytes, std::string name) {
  if (bytes > (std::size_t{1} << (kSlotBits - 1))) throw std::bad_alloc();
  Slot slot;
  slot.begin = kFirst + (static_cast<std::uint64_t>(slots_.size()) << kSlotBits) + kLead;
  slot.bytes = bytes;
  slot.live = true;
  slot.data.reset(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{64})));
  slot.name = std::move(name);
  std::memset(slot.data.get(), 0xff, bytes);
  slots_.push_back(std::move(slot));
  ++live_;
  live_bytes_ += bytes;
  return slots_.back().begin;
}

bool DeviceMemory::Release(std::uint64_t address) {
  const Slot* found = SlotOf(address);
  if (!found || !found->live || found->begin != address) return false;
  Slot& mine = slots_[static_cast<std::size_t>(found - slots_.data())];
  mine.live = false;
  mine.data.reset();
  --live_;
  live_bytes_ -= mine.bytes;
  return true;
}

bool DeviceMemory::Range(std::uint64_t address, std::uint64_t& begin, std::size_t& bytes) const {
  const Slot* slot = SlotOf(address);
  if (!slot || !slot->live || address - slot->begin >= slot->bytes) return false;
  begin = slot->begin;
  bytes = slot->bytes;
  return true;
}

std::string DeviceMemory::Explain(std::uint64_t address, std::size_t bytes, bool& released) const {
  const Slot* slot = SlotOf(address);
  released = slot && !slot->live;
  const std::string access = std::to_string(bytes) + " bytes at ";
  if (!slot) return access + (address == 0 ? "a null pointer" : "an address that no allocation has");
  const auto offset = static_cast<std::int64_t>(address - slot->begin);
  return access + "byte " + std::to_string(offset) + " of " + (slot->live ? "" : "released ") + "allocation '" +
         slot->name + "' of " + std::to_string(slot->bytes) + " bytes";
}

}  // namespace regard::emulator
