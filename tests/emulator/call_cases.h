// Problems of the calls in call_test.cc, on the first GPU of emulated_cases.h (a T4) unless another is named;
// write_instances.cc compiles what they need.
#pragma once

namespace regard::emulator {

struct CallCase {
  const char* gpu;
  const char* problem;
};

inline constexpr CallCase kCallCases[] = {
    {"T4", "prefill sq=33 skv=40 hq=4 hkv=2 d=64 dtype=f16 causal"},
    {"T4", "prefill sq=33 skv=40 hq=4 hkv=2 d=64 dtype=f16 bias"},
    {"T4", "decode sq=1 skv=4100 hq=4 hkv=2 d=64 dtype=f16 page=16"},
    {"T4", "decode sq=1 skv=40 hq=4 hkv=2 d=64 dtype=f16 page=16 append=1 rotary=half"},
    {"T4", "prefill sq=16 skv=16 hq=2 hkv=2 d=64 dtype=f32"},
};

// Gradients: each option that has one, and each that changes them.
inline constexpr CallCase kBackwardCases[] = {
    {"T4", "backward sq=7 skv=11 hq=4 hkv=2 d=40 dv=24 dtype=f16 causal"},
    {"T4", "backward b=2 sq=9 skv=9 hq=2 hkv=1 d=64 dtype=f32 softcap=5 alibi seed=2"},
    {"T4", "backward b=2 sq=5 skv=20 hq=2 hkv=2 d=16 dtype=bf16 window=6,2 bias dbias sink dsink dlse"},
    {"T4",
     "backward b=3 sq=12 skv=14 hq=2 hkv=1 d=32 dtype=f32 grad=f32 varlen lens=14,0,9 qlens=12,5,0 mask=0.3 "
     "dropout=0.4 dlse"},
    {"T4", "backward b=2 sq=6 skv=10 hq=2 hkv=2 d=72 dv=136 dtype=f16 grad=f32 leftpad chunk=4 lens=10,7 seed=4"},
    {"T4", "backward sq=0 skv=5 hq=2 hkv=1 d=64 dtype=f32 sink dsink"},
};

}  // namespace regard::emulator
