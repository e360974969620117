// The roofs: what this machine can do at best, over the threads of an executor, in the units of operations and bytes
// per second.
//
// Floating point: independent chains in registers (probe.h). Reading: the very memory that a case reads, as the best of
// several loops. Both run on the case's executor, so that threads, clocks and neighbours are those of the case.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "regard/executor.h"
#include "src/cpu/probe/probe.h"

namespace regard::probe {

// The best instruction set with probes that this CPU runs and that is not above `isa`.
Isa Runnable(Isa isa);

// Cycles per second of the calling thread right now: a chain of dependent one-cycle additions against the wall clock.
double ClockHz(double seconds = 0.002);

enum class FlopsKind { kFmaF32, kDotBf16 };
// Floating-point operations per second of all threads of `executor` over about `seconds`. 0 where the set has none.
double FlopsRoof(Executor& executor, Isa isa, FlopsKind kind, double seconds);

// kStreams: chunks are long; each is read as 1 to 16 streams. kChunks: in the given order, as random pages are, one
// after another or some side by side.
enum class ReadKind { kStreams, kChunks };

class ReadRoof {
 public:
  // Measures every variant some times and keeps the fastest. `chunks` point to memory that outlives the roof;
  // `executor` too.
  ReadRoof(Executor& executor, Isa isa, std::vector<Chunk> chunks, ReadKind kind);

  double Run();  // one pass of the fastest variant: bytes per second
  std::size_t bytes() const { return bytes_; }
  std::string variant() const;  // "4 streams, prefetch 512 B ahead into L1", "12 pieces side by side, ..."

 private:
  struct Variant {
    int streams = 1;    // kStreams
    Prefetch prefetch;  // of streams
    ChunkWalk walk;     // kChunks
  };
  std::vector<Variant> Variants() const;
  void CutIntoTasks(const std::vector<Chunk>& chunks);
  double Pass(const Variant& variant, std::size_t tasks);  // over the first tasks

  Executor& executor_;
  const ProbeTable& table_;
  ReadKind kind_;
  std::vector<Chunk> chunks_;            // in order, long ones cut into tasks' shares
  std::vector<std::size_t> task_begin_;  // task t: chunks [task_begin_[t], task_begin_[t + 1])
  std::size_t bytes_ = 0;
  Variant best_;
};

// FMAs (or dot products) per cycle and what that is of the nearest whole number of pipes above it.
struct PipeCheck {
  double clock_hz = 0;
  double flops = 0;      // per second, one thread
  double per_cycle = 0;  // register-wide instructions
  int pipes = 0;         // the least whole number that explains per_cycle
  double fraction = 0;   // flops / (pipes * lanes * flops per lane * clock)
};
// On the calling thread; the best of several short rounds of clock and probe, side by side.
PipeCheck CheckPipes(Isa isa, FlopsKind kind);

}  // namespace regard::probe
