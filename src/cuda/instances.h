// Instances: which compiled kernel a problem needs on a GPU, its name and its text. A name is the configuration,
// printed, and is one-to-one with the text: the emulator of tests/ finds its kernels by it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "regard/device.h"
#include "regard/problem.h"
#include "src/cuda/driver/instance.h"
#include "src/cuda/kernels/base/config.h"

namespace regard::cuda {

// "f32" "f16" "bf16" "f8e4m3" "f8e5m2"; both enumerations count alike.
Element ElementOf(DType type);

// Whether a problem runs split over keys, a block of threads a split: decode.
bool RunsSplit(const Problem& p);

// The configuration for a problem of f16, bf16 or fp8 queries, by what fits into the chip's shared memory; none:
// nothing does, or a head dim is above 256. The choice changes no bit.
std::optional<TensorConfig> TensorConfigFor(const Problem& p, const GpuCaps& gpu);
// Whether there is one for prefill and one for decode: a row may not depend on the phase (src/backend/select.cc).
bool TensorFits(const Problem& p, const GpuCaps& gpu);
GenericConfig GenericConfigFor(const Problem& p);

// Names: "sm80.prefill.bf16.d128.dv128.warps4.tiles2.stages1", and so on.
std::string NameOf(const TensorConfig& config);
std::string NameOf(const GenericConfig& config);

KernelInstance InstanceOf(const TensorConfig& config);
KernelInstance InstanceOf(const GenericConfig& config);
// States of the splits of a decode step into out and lse; for states of rows of `head_dim_v` (padded, of the config).
KernelInstance CombineInstance(int head_dim_v);
KernelInstance AppendInstance();
KernelInstance MergeInstance();

// The kernels of a backward pass (generic/backward.h).
enum class BackwardPart { kDelta, kQuery, kKey, kBias, kSink };
inline constexpr BackwardPart kBackwardParts[] = {BackwardPart::kDelta, BackwardPart::kQuery, BackwardPart::kKey,
                                                  BackwardPart::kBias, BackwardPart::kSink};
KernelInstance BackwardInstance(BackwardPart part, const Problem& p);

// What a launch of a forward pass runs, in its order: append, the attention kernel, combine; of a backward pass its
// parts.
enum class Generation { kSm80, kSm75, kGeneric };
enum class Role { kAppend, kAttend, kCombine, kBackward };
struct NeededInstance {
  Role role;
  KernelInstance instance;
  BackwardPart part = BackwardPart::kDelta;  // of Role::kBackward
};
std::vector<NeededInstance> InstancesOf(Generation generation, const Problem& p, const GpuCaps& gpu);
// The same for the kernel that Select chooses on the device; empty where that is none of the GPU's. Throws as Select
// does.
std::vector<KernelInstance> InstancesFor(const Problem& p, const DeviceCaps& caps);

// Every instance that the table's rows ask for on that chip: head dims 64, 96, 128, 192 and 256 and (192, 128), all
// types, prefill and decode, with options and without, append, merge and backward.
std::vector<KernelInstance> AllInstances(int sm);

}  // namespace regard::cuda
