// The device as the commands see it: this machine, measured on request, or with another set of instruction sets.
#pragma once

#include <string>
#include <vector>

#include "regard/device.h"

namespace regard::cli {

inline constexpr Isa kAllIsas[] = {Isa::kScalar, Isa::kNeon, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

// Throws Error{field} for an unknown name, with the known ones.
Isa ParseIsa(const std::string& field, const std::string& name);

// `isa` and everything that a CPU with it has as well, worst first: avx512 brings avx2 and scalar.
std::vector<Isa> IsasUpTo(Isa isa);

// "1 MiB", "48 KiB", "3.2 GiB".
std::string Bytes(double bytes);

// Puts this machine's measured read bandwidth (all threads) and FMA rate (one thread) into `caps`; takes about 0.3 s.
void MeasureQuickly(DeviceCaps* caps);

}  // namespace regard::cli
