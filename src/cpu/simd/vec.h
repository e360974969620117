// The vector contract. simd/<isa>.h defines it inside namespace regard::cpu::REGARD_ISA; tile/*.h is written against
// it. Every function is static; nothing here rounds except as IEEE 754 says.
//
//   kLanes, kTileRows        f32 lanes of V; query rows of a register tile
//   V                        kLanes f32, or any kLanes 32-bit patterns
//   Zero() Splat(x) SplatMem(p)  Load(p) Store(p, v)          p aligned to nothing; SplatMem copies bits
//   Fma(a, b, c) = a * b + c     one rounding (scalar: two; its numerics id says so)
//   Add Sub Mul Div Max Abs      Max may drop a NaN operand: NaN rows are caught by their sum instead
//   Exp2(y)                  2^y for y <= 0 and a little above; underflows to 0, -inf included; NaN stays
//   MarkMasked(x, p)         -0.0 where x == -inf, else p: a masked weight is exactly 0 and can be told from underflow
//   SelectLess(a, b, t, f)   a < b ? t : f by lane
//   CanonicalNan(x)          every NaN becomes 0x7fc00000, so that NaN rows have the same bits everywhere
//   SplatBits AddBits AndBits Xor   on dwords: a pattern everywhere, a + b modulo 2^32, a & b, a ^ b ^ c
//   MulEven(a, b)            dwords (2i, 2i + 1): the 64-bit product, low half first, of dwords 2i of a and b, unsigned
//   OddToEven(a)             dword 2i: a's 2i + 1; 2i + 1: 0
//   MergeEven(a, b)          dword 2i: a's 2i; 2i + 1: b's 2i
//   ZipPairs(a, b, even, odd)    in 64-bit lanes: even = a0 b0 a2 b2 ..., odd = a1 b1 a3 b3 ...
//   KeepFrom(x, low, v)      v where dword x >= low, unsigned, else +0
//   ReduceAdd(v) ReduceMax(v)    fixed trees
//   Transpose(V r[kLanes])   in place
//   LoadF16 LoadBF16 LoadE4M3 LoadE5M2 (p)   kLanes elements, exact; StoreF16 StoreBF16 (p, v): nearest even
//   PrefetchFar(p) PrefetchNear(p)   into L2, L1; always inlined (GCC takes a function that only prefetches for one
//                            without effect)
// With REGARD_HAS_MEMORY_BROADCAST also
//   FmaMem(p, b, c)          Fma(SplatMem(p), b, c), the splat inside the instruction; compilers would share one
// With REGARD_HAS_HALVES also
//   Halves(a, b, low, high)  low = a's lower half, then b's; high = their upper halves
// With REGARD_HAS_BF16_PAIRS also, on dwords that hold two bf16 (low half first):
//   DotPairs(acc, a, b)      vdpbf16ps: acc + a.hi * b.hi, then + a.lo * b.lo; denormals in and out are flushed to 0
//   DotPairsMem(acc, p, b)   DotPairs(acc, SplatMem(p), b), as FmaMem
//   PairsE4M3 PairsE5M2 (p)  2 * kLanes fp8 to bf16, exact
//   PackPairs(a, b)          2 * kLanes f32 (a first) to kLanes bf16 pairs, nearest even, denormals to 0
//   PairRows(a, b)           dword c of the result = (element c of a, element c of b), rounded like PackPairs
//   Interleave(r0, r1, o0, o1)   dword c of (o0, o1) = (element c of r0, element c of r1)
//
// 2^f on [-0.5, 0.5] is 1 + f * (c1 + f * (c2 + ...)), minimax in relative error with the constant held at 1 (so that
// 2^0 is exactly 1 and folding into an empty state changes no bit); worst relative error 9.2e-8.
#pragma once

#include <stdint.h>
#include <string.h>

namespace regard::cpu {

inline constexpr float kExp2C1 = 0x1.62e42ap-1f;
inline constexpr float kExp2C2 = 0x1.ebf9bcp-3f;
inline constexpr float kExp2C3 = 0x1.c6b752p-5f;
inline constexpr float kExp2C4 = 0x1.3cea88p-7f;
inline constexpr float kExp2C5 = 0x1.5bba14p-10f;
// The same on [0, 1]; worst relative error 1.4e-7 with its roundings.
inline constexpr float kExp2UnitC1 = 0x1.62e4bap-1f;
inline constexpr float kExp2UnitC2 = 0x1.ebdb6ap-3f;
inline constexpr float kExp2UnitC3 = 0x1.c91c10p-5f;
inline constexpr float kExp2UnitC4 = 0x1.277c1cp-7f;
inline constexpr float kExp2UnitC5 = 0x1.e96910p-10f;

}  // namespace regard::cpu
