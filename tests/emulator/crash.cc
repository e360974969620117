// Signal handlers: one line on stderr, then the signal's default action.
#include "tests/emulator/crash.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <mutex>

#include "tests/emulator/block.h"

namespace regard::emulator {
namespace {

void Say(int signal) {
  if (current_block) {
    char line[512];
    const int n = std::snprintf(line, sizeof(line), "emulator: %s in kernel %s, block (%d, %d, %d), thread %d\n",
                                signal == SIGFPE ? "a division of whole numbers by zero" : "an access past the views",
                                current_block->kernel_name(), position.block[0], position.block[1], position.block[2],
                                position.thread);
    if (n > 0) static_cast<void>(!write(STDERR_FILENO, line, static_cast<std::size_t>(n)));
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

void SayWhereKernelsCrash() {
  static std::once_flag once;
  std::call_once(once, [] {
    for (const int signal : {SIGFPE, SIGSEGV, SIGBUS}) {
      struct sigaction action = {};
      sigaction(signal, nullptr, &action);
      if (action.sa_handler != SIG_DFL || (action.sa_flags & SA_SIGINFO)) continue;
      action.sa_handler = &Say;
      action.sa_flags = SA_NODEFER;
      sigaction(signal, &action, nullptr);
    }
  });
}

}  // namespace regard::emulator
