// Emulated twin of src/cuda/kernels/ptx/memory.h: every access is checked. It has no Pointer: kernels use none.
#pragma once

#include <type_traits>

#include "base/types.h"
#include "tests/emulator/device.h"

namespace regard::cuda {

template <class T>
struct Global {
  T* data;

  explicit Global(T* pointer) : data(pointer) {}
  T Load(i64 i, emulator::Site site = emulator::Here()) const {
    std::remove_const_t<T> x;
    __builtin_memcpy(&x, emulator::GlobalRead(data + i, sizeof(T), site), sizeof(T));
    return x;
  }
  void Store(i64 i, T x, emulator::Site site = emulator::Here()) const {
    __builtin_memcpy(emulator::GlobalWrite(data + i, sizeof(T), site), &x, sizeof(T));
  }
  Vec16 Load16(i64 i, emulator::Site site = emulator::Here()) const {
    Vec16 x;
    __builtin_memcpy(&x, emulator::GlobalRead(data + i, 16, site), 16);
    return x;
  }
  void Store16(i64 i, Vec16 x, emulator::Site site = emulator::Here()) const {
    __builtin_memcpy(emulator::GlobalWrite(data + i, 16, site), &x, 16);
  }
  Global operator+(i64 i) const { return Global(data + i); }
  bool Present() const { return data != nullptr; }
};

inline void AtomicOr(Global<u32> view, i64 i, u32 bits, emulator::Site site = emulator::Here()) {
  auto* word = reinterpret_cast<u32*>(emulator::GlobalWrite(view.data + i, sizeof(u32), site));
  __atomic_fetch_or(word, bits, __ATOMIC_RELAXED);
}

template <class T>
struct Shared {
  u32 offset;

  explicit Shared(u32 bytes) : offset(bytes) {}
  i64 At(int i) const { return static_cast<i64>(offset) + static_cast<i64>(i) * static_cast<i64>(sizeof(T)); }
  T Load(int i, emulator::Site site = emulator::Here()) const {
    T x;
    __builtin_memcpy(&x, emulator::SharedRead(At(i), sizeof(T), site), sizeof(T));
    return x;
  }
  void Store(int i, T x, emulator::Site site = emulator::Here()) const {
    __builtin_memcpy(emulator::SharedWrite(At(i), sizeof(T), site), &x, sizeof(T));
  }
  Vec16 Load16(int i, emulator::Site site = emulator::Here()) const {
    Vec16 x;
    __builtin_memcpy(&x, emulator::SharedRead(At(i), 16, site), 16);
    return x;
  }
  void Store16(int i, Vec16 x, emulator::Site site = emulator::Here()) const {
    __builtin_memcpy(emulator::SharedWrite(At(i), 16, site), &x, 16);
  }
  u32 Address(int i) const { return static_cast<u32>(At(i)); }
  Shared operator+(int i) const { return Shared(offset + static_cast<u32>(i) * sizeof(T)); }
};

}  // namespace regard::cuda
