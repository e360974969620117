// A kernel is one row of its backend's table. The row is the whole registration: selection, tests, benches and
// `regard list` read the table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "regard/attention.h"
#include "regard/plan.h"
#include "src/problem/sequence.h"

namespace regard {

// Accept(), or a reason: Reject("head_dim", 320, "<= 256").Remedy("..."). Selection asks every row and most of them
// refuse, so a verdict only points at its words, all of static lifetime; the texts are made where somebody reads them.
struct Verdict {
  using Value = std::variant<std::int64_t, double, std::string_view>;
  struct Words {
    std::string reason, remedy;
  };
  bool accepted = true;
  std::string_view field, needs, remedy, remedy_end;
  Value value;
  // Where the words depend on the machine rather than on the arguments: what says them, with the device asked about.
  Words (*words)(const DeviceCaps&) = nullptr;

  Verdict Remedy(std::string_view text, std::string_view end = {}) && {
    remedy = text;
    remedy_end = end;
    return *this;
  }
  Words Said(const DeviceCaps& caps) const;  // reason: "head_dim 320, needs <= 256"
};
inline Verdict Accept() { return {}; }
inline Verdict Reject(std::string_view field, Verdict::Value value, std::string_view needs) {
  return {false, field, needs, {}, {}, value, nullptr};
}
inline Verdict Reject(Verdict::Words (*words)(const DeviceCaps&)) { return {false, {}, {}, {}, {}, {}, words}; }
// CPU kernels and the reference read host memory.
inline Verdict RejectGpu() {
  return Reject("device", "cuda", "cpu memory").Remedy("copy the tensors to the CPU");
}

// What a kernel's plan function decides; printable by explain.
struct KernelPlan {
  PlanShape shape;
  std::size_t workspace_bytes = 0;  // beyond what Launch itself needs; in the memory of the device
  std::string numerics;             // where it is not that of the row, because of REGARD_TUNE; else ""
  std::shared_ptr<const void> own;  // what the backend keeps for its launches
};

// One launch, arguments checked and resolved (on a GPU: views checked; nobody has looked at the tables).
struct LaunchContext {
  const Problem& problem;                 // the plan's bounds and options
  const AttentionArgs& args;
  std::span<const Sequence> sequences;    // of the batch; empty on a GPU
  const KernelPlan& plan;
  Executor& executor;
  std::span<std::byte> workspace;         // 64-byte aligned (GPU: 256), plan.workspace_bytes
  const BackwardArgs* backward = nullptr; // set exactly where the phase is backward; args is then backward->forward
  Stream stream = {};                     // of a GPU
};

struct KernelInfo {
  const char* name;
  const char* numerics;
  // Whether the row can do the problem on the device. Apart from its phase (sequence lengths, mixed batches) it may look
  // only at what a numerics id may depend on: dtypes, head dims, options, device (src/backend/select.cc says why).
  Verdict (*supports)(const KernelInfo&, const Problem&, const DeviceCaps&);
  // Estimate, for explain; decides only among able rows with the same numerics.
  Cost (*cost)(const KernelInfo&, const Problem&, const DeviceCaps&);
  KernelPlan (*plan)(const KernelInfo&, const Problem&, const DeviceCaps&, int threads);
  void (*launch)(const LaunchContext&);   // writes out, lse, and the cache where it appends; backward: the gradients
  const char* summary;                    // one phrase for `regard list`
  DeviceType device = DeviceType::kCpu;   // whose memory it works on; supports() rejects every other device
};

// All tables, in order of preference: GPU rows first (each device takes its own only), then CPU best ISA first, the
// reference last.
std::span<const KernelInfo* const> AllKernels();
const KernelInfo* FindKernel(std::string_view name);  // nullptr if unknown

// The tables.
std::span<const KernelInfo> CudaKernels();       // src/cuda/table.cc
std::span<const KernelInfo> CpuKernels();        // src/cpu/table.cc
std::span<const KernelInfo> ReferenceKernels();  // src/reference/table.cc

}  // namespace regard
