// Stackful coroutines, one for each emulated thread, switched by Boost.Context. A switch costs some nanoseconds; fibers
// never move between host threads. Stacks come from a pool that a host thread keeps, each above a page without access.
#pragma once

#include <cstddef>
#include <vector>

namespace regard::emulator {

struct Fiber {
  void* context = nullptr;     // where it stopped
  std::byte* stack = nullptr;  // lowest byte; null: the host thread's own stack
  std::size_t bytes = 0;
  void (*entry)() = nullptr;   // what it begins with
  void* fake_stack = nullptr;  // of the address sanitizer
};

// Owns its stacks.
class FiberStacks {
 public:
  static constexpr std::size_t kBytes = 256 << 10;

  FiberStacks() = default;
  FiberStacks(const FiberStacks&) = delete;
  FiberStacks& operator=(const FiberStacks&) = delete;
  ~FiberStacks();

  // A fiber on stack number `n` that begins with `entry`, which must not return. What ran on the stack is forgotten.
  Fiber Prepare(std::size_t n, void (*entry)());

 private:
  std::vector<std::byte*> maps_;
};

// Stops `from`, which is running, and goes on with `to`.
void Switch(Fiber& from, Fiber& to);

}  // namespace regard::emulator
