// FpModeGuard: the floating-point mode that every task of regard computes in, whatever the caller's thread had.
// Inside the guard: round to nearest even, denormals kept on input and output, no traps. Its end restores the control
// and status register as it was found, sticky flags included.
//
// Put it around a task's work, in the function that calls the kernel: values that the kernel loads from memory and
// stores to memory inside the guard are computed in its mode.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <cfenv>
#endif

namespace regard {

class FpModeGuard {
 public:
  FpModeGuard() noexcept : saved_(Read()) { Write(Wanted(saved_)); }
  ~FpModeGuard() { Write(saved_); }
  FpModeGuard(const FpModeGuard&) = delete;
  FpModeGuard& operator=(const FpModeGuard&) = delete;

 private:
#if defined(__x86_64__) || defined(__i386__)
  // MXCSR, Intel SDM volume 1, 10.2.3: DAZ bit 6, exception masks 7..12, rounding control 13..14, FTZ bit 15.
  using Register = std::uint32_t;
  static constexpr Register kDenormalsAreZero = 1u << 6;
  static constexpr Register kMasks = 0x3fu << 7;
  static constexpr Register kRounding = 3u << 13;
  static constexpr Register kFlushToZero = 1u << 15;
  static Register Wanted(Register r) noexcept {
    return (r & ~(kRounding | kFlushToZero | kDenormalsAreZero)) | kMasks;
  }
  static Register Read() noexcept { return _mm_getcsr(); }
  static void Write(Register r) noexcept {
    asm volatile("" ::: "memory");  // loads and stores stay on their side of the switch
    _mm_setcsr(r);
    asm volatile("" ::: "memory");
  }
#elif defined(__aarch64__)
  // FPCR, Arm ARM C5.2.8: FIZ 0, AH 1, NEP 2, traps 8..12 and 15, FZ16 19, rounding 22..23, FZ 24, DN 25.
  using Register = std::uint64_t;
  static constexpr Register kCleared =
      0x7ull | (0x9full << 8) | (1ull << 19) | (3ull << 22) | (1ull << 24) | (1ull << 25);
  static Register Wanted(Register r) noexcept { return r & ~kCleared; }
  static Register Read() noexcept {
    Register r;
    asm volatile("mrs %0, fpcr" : "=r"(r));
    return r;
  }
  static void Write(Register r) noexcept { asm volatile("msr fpcr, %0" ::"r"(r) : "memory"); }
#else
  // Elsewhere the C library knows the rounding mode only; denormals are kept by default.
  using Register = int;
  static Register Wanted(Register) noexcept { return FE_TONEAREST; }
  static Register Read() noexcept { return std::fegetround(); }
  static void Write(Register r) noexcept { std::fesetround(r); }
#endif

  Register saved_;
};

}  // namespace regard
