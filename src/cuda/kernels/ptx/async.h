// Copies from global to shared memory that go on while the thread does. The copying thread sees its data after
// CopyAsyncWait, the others after a barrier that follows it. Before sm_80 the copy is made on the spot.
// Source: PTX ISA, cp.async, cp.async.commit_group, cp.async.wait_group.
#pragma once

#include "base/types.h"
#include "ptx/memory.h"

namespace regard::cuda {

// 16 bytes, both sides 16-byte aligned; zeros where not `valid`, and then `from` is not read.
template <class T>
REGARD_DEVICE void CopyAsync16(Shared<T> to, int to_index, Global<const T> from, i64 from_index, bool valid) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(to.Address(to_index)), "l"(from.data + from_index), "r"(valid ? 16 : 0)
               : "memory");
#else
  to.Store16(to_index, valid ? from.Load16(from_index) : Vec16{{0, 0, 0, 0}});
#endif
}

// Closes a group of the copies so far.
REGARD_DEVICE void CopyAsyncCommit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Until at most `pending` groups, the youngest, are still under way.
template <int pending>
REGARD_DEVICE void CopyAsyncWait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

}  // namespace regard::cuda
