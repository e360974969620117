// What this machine's CPU offers, before REGARD_* variables cut it down.
#pragma once

#include <string>
#include <vector>

#include "regard/device.h"
#include "src/core/env.h"

namespace regard {

// Instruction sets that both the CPU and the operating system support, worst first, kScalar always.
std::vector<Isa> DetectIsas();
// "AMD EPYC 9654 96-Core Processor", or the architecture's name where the CPU does not tell.
std::string DetectCpuName();
// l1_bytes, l2_bytes and l3_bytes of `caps`; a level that the system does not describe keeps its value.
void DetectCaches(DeviceCaps* caps);

// REGARD_CPU_ISA=x leaves x and scalar. Throws Error{"REGARD_CPU_ISA"} if x is not among `detected`.
std::vector<Isa> UsableIsas(const std::vector<Isa>& detected, const EnvSettings& settings);
// This machine under `settings`: what DeviceCaps::Host() holds.
DeviceCaps DetectHost(const EnvSettings& settings);

}  // namespace regard
