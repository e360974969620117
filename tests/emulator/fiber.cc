// Stacks and switches. Under the address sanitizer every switch is announced to it.
#include "tests/emulator/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <boost/context/detail/fcontext.hpp>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define REGARD_EMULATOR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define REGARD_EMULATOR_ASAN 1
#endif
#endif
#if defined(REGARD_EMULATOR_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace regard::emulator {
namespace {

namespace context = boost::context::detail;

struct Passage {
  Fiber* from;
  Fiber* to;
};

// The sanitizer learns the bounds of a host thread's stack when it is left for the first time.
void BeginSwitch([[maybe_unused]] Fiber& from, [[maybe_unused]] Fiber& to) {
#if defined(REGARD_EMULATOR_ASAN)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.bytes);
#endif
}
void EndSwitch(const context::transfer_t& transfer) {
  const Passage passage = *static_cast<const Passage*>(transfer.data);
  passage.from->context = transfer.fctx;
#if defined(REGARD_EMULATOR_ASAN)
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(passage.to->fake_stack, &bottom, &bytes);
  if (!passage.from->stack) {
    passage.from->stack = const_cast<std::byte*>(static_cast<const std::byte*>(bottom));
    passage.from->bytes = bytes;
  }
#endif
}

void Enter(context::transfer_t transfer) {
  void (*const entry)() = static_cast<const Passage*>(transfer.data)->to->entry;
  EndSwitch(transfer);
  entry();
}

std::size_t PageBytes() {
  static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

FiberStacks::~FiberStacks() {
  for (std::byte* map : maps_) munmap(map, PageBytes() + kBytes);
}

Fiber FiberStacks::Prepare(std::size_t n, void (*entry)()) {
  while (maps_.size() <= n) {
    void* map =
        mmap(nullptr, PageBytes() + kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) throw std::bad_alloc();
    mprotect(map, PageBytes(), PROT_NONE);
    maps_.push_back(static_cast<std::byte*>(map));
  }
  Fiber fiber;
  fiber.entry = entry;
  fiber.stack = maps_[n] + PageBytes();
  fiber.bytes = kBytes;
#if defined(REGARD_EMULATOR_ASAN)
  __asan_unpoison_memory_region(fiber.stack, fiber.bytes);
#endif
  fiber.context = context::make_fcontext(fiber.stack + kBytes, kBytes, &Enter);
  return fiber;
}

void Switch(Fiber& from, Fiber& to) {
  Passage passage{&from, &to};
  BeginSwitch(from, to);
  EndSwitch(context::jump_fcontext(to.context, &passage));
}

}  // namespace regard::emulator
