// The only ways to device memory: views of global memory and of the block's dynamic shared memory. A view owns nothing.
// Vec16 accesses want 16-byte alignment.
#pragma once

#include "base/types.h"

namespace regard::cuda {

extern __shared__ __align__(128) unsigned char shared_memory[];

// ld.global, st.global. T may be const.
template <class T>
struct Global {
  T* data;

  REGARD_DEVICE explicit Global(T* pointer) : data(pointer) {}
  REGARD_DEVICE T Load(i64 i) const { return data[i]; }
  REGARD_DEVICE void Store(i64 i, T x) const { data[i] = x; }
  // 16 bytes from element i on.
  REGARD_DEVICE Vec16 Load16(i64 i) const { return *reinterpret_cast<const Vec16*>(data + i); }
  REGARD_DEVICE void Store16(i64 i, Vec16 x) const { *reinterpret_cast<Vec16*>(data + i) = x; }
  REGARD_DEVICE Global operator+(i64 i) const { return Global(data + i); }
  REGARD_DEVICE bool Present() const { return data != nullptr; }
};

// atom.global.or
REGARD_DEVICE void AtomicOr(Global<u32> view, i64 i, u32 bits) { atomicOr(view.data + i, bits); }

// ld.shared, st.shared. `offset` counts bytes from the start of the block's shared memory.
template <class T>
struct Shared {
  u32 offset;

  REGARD_DEVICE explicit Shared(u32 bytes) : offset(bytes) {}
  REGARD_DEVICE T* Pointer(int i) const { return reinterpret_cast<T*>(shared_memory + offset) + i; }
  REGARD_DEVICE T Load(int i) const { return *Pointer(i); }
  REGARD_DEVICE void Store(int i, T x) const { *Pointer(i) = x; }
  REGARD_DEVICE Vec16 Load16(int i) const { return *reinterpret_cast<const Vec16*>(Pointer(i)); }
  REGARD_DEVICE void Store16(int i, Vec16 x) const { *reinterpret_cast<Vec16*>(Pointer(i)) = x; }
  REGARD_DEVICE u32 Address(int i) const { return static_cast<u32>(__cvta_generic_to_shared(Pointer(i))); }
  REGARD_DEVICE Shared operator+(int i) const { return Shared(offset + static_cast<u32>(i) * sizeof(T)); }
};

}  // namespace regard::cuda
