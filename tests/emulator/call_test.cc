// Calls on tensors of a GPU, as a program makes them: one-call functions, plans within their bounds, gradients,
// merging, and what is refused. The driver is the fake one, the kernels run in the emulator.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "regard/regard.h"
#include "src/cases/cases.h"
#include "src/cases/check.h"
#include "src/cases/oracle.h"
#include "src/cuda/driver/memory.h"
#include "tests/emulator/call_cases.h"
#include "tests/emulator/device_case.h"
#include "tests/emulator/emulated_cases.h"
#include "tests/emulator/fake/control.h"

namespace regard::emulator {
namespace {

constexpr Device kGpu{DeviceType::kCuda, 0};

// The bytes of a contiguous tensor of the GPU.
std::vector<std::byte> BytesOf(const TensorView& view) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(view.Elements()) * SizeOf(view.dtype));
  if (bytes.empty()) return bytes;
  cuda::Synchronize(view.device.index, nullptr);
  const auto address = static_cast<cuda::DevicePointer>(reinterpret_cast<std::uintptr_t>(view.data));
  cuda::DeviceBuffer copy(view.device.index, bytes.size());
  cuda::CopyOnDevice(view.device.index, copy.address(), address, bytes.size(), nullptr);
  cuda::Synchronize(view.device.index, nullptr);
  copy.CopyToHost(bytes.data(), bytes.size());
  return bytes;
}

void ExpectNoReports() {
  for (const std::string& report : fake::TakeReports()) ADD_FAILURE() << report;
}

template <class Call>
Error ErrorOf(Call&& call) {
  try {
    call();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was refused";
  return Error("", "", "");
}

TEST(Call, AttentionAllocatesItsResultsOnTheGpuOfItsTensors) {
  const Problem p = ParseProblem("prefill b=2 sq=33 skv=40 hq=4 hkv=2 d=64 dtype=f16 causal");
  cases::Case host = cases::MakeCase(p);
  const cases::Oracle oracle(p, host.args());
  const DeviceCase device(host.args(), 0);
  AttentionArgs args = device.args();
  args.out = {};
  args.lse.reset();
  const AttentionResult result = Attention(args, p.options, true);
  EXPECT_EQ(result.selection.kernel, "cuda.sm75.prefill.f16");
  ASSERT_TRUE(result.out.defined() && result.lse.defined());
  EXPECT_EQ(result.out.view().device, kGpu);
  EXPECT_EQ(result.lse.view().device, kGpu);
  CheckDevice(kGpu);
  const std::vector<std::byte> out = BytesOf(result.out.view()), lse = BytesOf(result.lse.view());
  std::vector<float> host_lse(lse.size() / sizeof(float));
  std::memcpy(host_lse.data(), lse.data(), lse.size());
  std::memcpy(host.args().out.data, out.data(), out.size());
  host.args().lse = TensorView::Contiguous(host_lse.data(), DType::kF32, {2, 4, 33});
  const cases::Accuracy accuracy = cases::CheckAccuracy(
      [&] {
        Problem with = p;
        with.lse = true;
        return with;
      }(),
      host.args());
  EXPECT_TRUE(accuracy.ok()) << accuracy.where;
  ExpectNoReports();
}

TEST(Call, AnEmptyBatchIsNoError) {
  const Problem p = ParseProblem("prefill b=0 sq=33 skv=40 hq=4 hkv=2 d=64 dtype=f16 causal");
  cases::Case host = cases::MakeCase(p);
  const DeviceCase device(host.args(), 0);
  EXPECT_EQ(Attention(device.args(), p.options).selection.kernel, "cuda.sm75.prefill.f16");
  ExpectNoReports();
}

TEST(Call, APlanServesSmallerCallsWithTheSameBits) {
  const Problem bounds = ParseProblem("decode b=3 sq=2 skv=5000 hq=4 hkv=2 d=64 dtype=f16 page=16");
  const Problem p = ParseProblem("decode b=2 sq=1 skv=4100 hq=4 hkv=2 d=64 dtype=f16 page=16 lens=4100,77");
  cases::Case host = cases::MakeCase(p);
  const DeviceCaps& caps = DeviceCaps::Gpu(0);
  std::vector<std::vector<std::byte>> outs;
  for (const Problem& plan_for : {bounds, p}) {
    const DeviceCase device(host.args(), 0);
    const Plan plan(plan_for, Select(plan_for, caps));
    const cuda::DeviceBuffer workspace(0, plan.workspace_bytes());
    Launch(plan, device.args(), {workspace.data(), workspace.bytes()});
    CheckDevice(kGpu);
    outs.push_back(BytesOf(device.args().out));
  }
  EXPECT_EQ(outs[0], outs[1]);
  ExpectNoReports();
}

TEST(Call, LengthsOnTheGpuAreBoundedByShapesAndByPromises) {
  const Problem p = ParseProblem("decode b=2 sq=1 skv=4100 hq=4 hkv=2 d=64 dtype=f16 page=16 lens=4100,77");
  cases::Case host = cases::MakeCase(p);
  const DeviceCase device(host.args(), 0);
  AttentionArgs args = device.args();
  EXPECT_EQ(ProblemOf(args, {}).seq_kv, args.block_table->shape[1] * 16);
  args.max_seqlen_kv = 4100;
  EXPECT_EQ(ProblemOf(args, {}).seq_kv, 4100);
  EXPECT_EQ(ProblemOf(args, {}).phase, Phase::kDecode);
  args.max_seqlen_kv = -1;
  EXPECT_EQ(ErrorOf([&] { ProblemOf(args, {}); }).field(), "max_seqlen_kv");
  args.max_seqlen_kv = 100;  // sequence 0 breaks the promise: it is skipped, and the next check says so
  Attention(args, {});
  const Error e = ErrorOf([&] { CheckDevice(kGpu); });
  EXPECT_EQ(e.field(), "cuda.tables");
  EXPECT_NE(e.value().find("seqlens_kv"), std::string::npos) << e.value();
  CheckDevice(kGpu);
  ExpectNoReports();
}

TEST(Call, WhatAnEarlierLaunchMetIsSaidByTheNext) {
  const Problem p = ParseProblem("decode b=2 sq=1 skv=4100 hq=4 hkv=2 d=64 dtype=f16 page=16");
  cases::Case host = cases::MakeCase(p);
  static_cast<std::int32_t*>(host.args().block_table->data)[3] = 1 << 20;
  const DeviceCase bad(host.args(), 0);
  const Plan plan(p, Select(p, DeviceCaps::Gpu(0)));
  const cuda::DeviceBuffer workspace(0, plan.workspace_bytes());
  const Workspace memory{workspace.data(), workspace.bytes()};
  Launch(plan, bad.args(), memory);
  cuda::Synchronize(0, nullptr);
  const Error e = ErrorOf([&] { Launch(plan, bad.args(), memory); });
  EXPECT_EQ(e.field(), "cuda.tables");
  EXPECT_NE(e.value().find("block_table"), std::string::npos) << e.value();
  CheckDevice(kGpu);  // said once
  ExpectNoReports();
}

TEST(Call, TensorsOfTwoDevicesAreRefusedWithTheWayOut) {
  const Problem p = ParseProblem("decode b=2 sq=1 skv=4100 hq=4 hkv=2 d=64 dtype=f16 page=16");
  cases::Case host = cases::MakeCase(p);
  const DeviceCase device(host.args(), 0);
  const Plan plan(p, Select(p, DeviceCaps::Gpu(0)));
  const cuda::DeviceBuffer workspace(0, plan.workspace_bytes());
  const Workspace memory{workspace.data(), workspace.bytes()};
  AttentionArgs args = device.args();
  args.block_table = host.args().block_table;
  const Error table = ErrorOf([&] { Launch(plan, args, memory); });
  EXPECT_EQ(table.field(), "block_table.device");
  EXPECT_EQ(table.value(), "cpu");
  EXPECT_EQ(table.expected(), "cuda:0, as q: copy it there first, tables of lengths and pages too");
  const Error cpu = ErrorOf([&] { Launch(plan, host.args(), memory); });
  EXPECT_EQ(cpu.field(), "q.device");
  EXPECT_EQ(cpu.expected(), "cuda:0");
  const Plan cpu_plan(p, Select(p, DeviceCaps::Host()));
  std::vector<std::byte> host_memory(cpu_plan.workspace_bytes());
  const Error gpu = ErrorOf([&] { Launch(cpu_plan, device.args(), {host_memory.data(), host_memory.size()}); });
  EXPECT_EQ(gpu.field(), "q.device");
  EXPECT_EQ(gpu.value(), "cuda:0");
  AttentionArgs elsewhere = device.args();
  elsewhere.q.device.index = 77;
  EXPECT_EQ(ErrorOf([&] { Attention(elsewhere, {}); }).field(), "device");
  ExpectNoReports();
}

TEST(Call, ShapesBeyondThePlanAreRefusedBeforeAnythingIsWritten) {
  const Problem p = ParseProblem("prefill b=2 sq=33 skv=40 hq=4 hkv=2 d=64 dtype=f16 causal");
  cases::Case host = cases::MakeCase(p);
  const DeviceCase device(host.args(), 0);
  Problem less = p;
  less.seq_q = 32;
  const auto launch = [&](const Problem& bounds) {
    const Plan plan(bounds, Select(bounds, DeviceCaps::Gpu(0)));
    const cuda::DeviceBuffer workspace(0, plan.workspace_bytes());
    Launch(plan, device.args(), {workspace.data(), workspace.bytes()});
  };
  EXPECT_EQ(ErrorOf([&] { launch(less); }).field(), "q.shape[1]");
  less = p;
  less.seq_kv = 39;
  EXPECT_EQ(ErrorOf([&] { launch(less); }).field(), "k.shape[1]");
  const Problem biased = ParseProblem("prefill b=2 sq=33 skv=40 hq=4 hkv=2 d=64 dtype=f16 bias");
  cases::Case with_bias = cases::MakeCase(biased);
  DeviceCase on_gpu(with_bias.args(), 0);
  AttentionArgs args = on_gpu.args();
  args.bias->shape[3] = 39;
  EXPECT_EQ(ErrorOf([&] { Attention(args, biased.options); }).field(), "bias.shape[3]");
  ExpectNoReports();
}

TEST(Call, AppendsRotateAndWriteTheCache) {
  const Problem p =
      ParseProblem("decode b=2 sq=1 skv=40 hq=4 hkv=2 d=64 dtype=f16 page=16 append=1 rotary=half lens=40,23");
  cases::CheckReport report =
      cases::RunCheck(std::vector<Problem>{p}, std::vector<const KernelInfo*>{FindKernel("cuda.sm75.decode.f16")});
  for (const cases::Miss& miss : report.misses) ADD_FAILURE() << miss.problem << ": " << miss.what;
  EXPECT_EQ(report.runs, 1);
  ExpectNoReports();
}

TEST(Call, GradientsMeetTheAccuracyRule) {
  std::vector<Problem> problems;
  for (const CallCase& c : kBackwardCases) problems.push_back(ParseProblem(c.problem));
  std::vector<const KernelInfo*> kernels;
  for (const char* type : {"f32", "f16", "bf16"})
    kernels.push_back(FindKernel(std::string("cuda.generic.backward.") + type));
  const cases::CheckReport report = cases::RunCheck(problems, kernels);
  for (const cases::Miss& miss : report.misses) ADD_FAILURE() << miss.problem << ": " << miss.what;
  EXPECT_EQ(report.runs, static_cast<std::int64_t>(problems.size()));
  ExpectNoReports();
}

TEST(Call, GradientsAreAllocatedOnTheGpu) {
  const Problem p = ParseProblem(kBackwardCases[0].problem);
  cases::Case host = cases::MakeCase(p);
  const DeviceCase device(host.args(), 0);
  BackwardArgs call;
  call.forward = device.args();
  std::vector<DeviceCase> more;
  AttentionArgs carrier = host.args();  // dout travels as another call's out
  carrier.out = host.call().dout;
  more.emplace_back(carrier, 0);
  call.dout = more.back().args().out;
  const BackwardResult result = AttentionBackward(call, p.options);
  EXPECT_EQ(result.selection.kernel, "cuda.generic.backward.f16");
  CheckDevice(kGpu);
  for (const auto& [owned, expected] :
       {std::pair{&result.dq, &host.call().dq}, {&result.dk, &host.call().dk}, {&result.dv, &host.call().dv}}) {
    EXPECT_EQ(owned->view().device, kGpu);
    const std::vector<std::byte> bytes = BytesOf(owned->view());
    std::memcpy(expected->data, bytes.data(), bytes.size());
  }
  const cases::Accuracy accuracy = cases::CheckAccuracy(p, host.call());
  EXPECT_TRUE(accuracy.ok()) << accuracy.where;
  ExpectNoReports();
}

// Owns a tensor of the host and its copy on the GPU.
struct Both {
  std::vector<float> values;
  TensorView host, gpu;
  cuda::DeviceBuffer memory;
  Both(std::vector<float> numbers, std::initializer_list<std::int64_t> shape)
      : values(std::move(numbers)), memory(0, values.size() * sizeof(float)) {
    host = gpu = TensorView::Contiguous(values.data(), DType::kF32, shape);
    memory.CopyFromHost(values.data(), values.size() * sizeof(float));
    gpu.data = memory.data();
    gpu.device = kGpu;
  }
  std::vector<float> Back() const {
    std::vector<float> back(values.size());
    memory.CopyToHost(back.data(), back.size() * sizeof(float));
    return back;
  }
};

TEST(Call, MergingStatesAgreesWithTheCpu) {
  constexpr std::int64_t kRows = 5, kHeads = 3, kDims = 37;
  const float none = -std::numeric_limits<float>::infinity();
  const auto numbers = [](std::int64_t n, float step) {
    std::vector<float> x(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(step * static_cast<float>(i + 1));
    return x;
  };
  std::vector<float> l_a = numbers(kRows * kHeads, 0.7f), l_b = numbers(kRows * kHeads, 1.3f);
  l_a[0] = l_a[4] = l_b[4] = l_b[7] = none;
  const Both o_a(numbers(kRows * kHeads * kDims, 0.1f), {kRows, kHeads, kDims}),
      o_b(numbers(kRows * kHeads * kDims, 0.3f), {kRows, kHeads, kDims});
  const Both lse_a(l_a, {kHeads, kRows}), lse_b(l_b, {kHeads, kRows});
  Both out(numbers(kRows * kHeads * kDims, 0), {kRows, kHeads, kDims}),
      lse(numbers(kRows * kHeads, 0), {kHeads, kRows});
  MergeStates(o_a.gpu, lse_a.gpu, o_b.gpu, lse_b.gpu, out.gpu, lse.gpu);
  cuda::Synchronize(0, nullptr);
  MergeStates(o_a.host, lse_a.host, o_b.host, lse_b.host, out.host, lse.host);
  const std::vector<float> got = out.Back(), got_lse = lse.Back();
  for (std::size_t n = 0; n < got.size(); ++n) EXPECT_NEAR(got[n], out.values[n], 1e-6) << n;
  for (std::size_t n = 0; n < got_lse.size(); ++n) {
    if (lse.values[n] == none) {
      EXPECT_EQ(got_lse[n], none) << n;
    } else {
      EXPECT_NEAR(got_lse[n], lse.values[n], 1e-6) << n;
    }
  }
  EXPECT_EQ(ErrorOf([&] { MergeStates(o_a.gpu, lse_a.gpu, o_b.host, lse_b.gpu, out.gpu, lse.gpu); }).field(), "o_b");
  ExpectNoReports();
}

TEST(Call, AGpuOfThisMachineIsDescribedByItsDriver) {
  ASSERT_EQ(DeviceCaps::GpuCount(), static_cast<int>(std::size(kGpus)));
  for (int index = 0; index < DeviceCaps::GpuCount(); ++index) {
    const DeviceCaps& caps = DeviceCaps::Gpu(index);
    const DeviceCaps known = DeviceCaps::Known(kGpus[index]);
    EXPECT_EQ(caps.gpu->index, index);
    EXPECT_EQ(caps.gpu->sm, known.gpu->sm);
    EXPECT_EQ(caps.gpu->multiprocessors, known.gpu->multiprocessors) << caps.name;
    EXPECT_EQ(caps.gpu->shared_per_block_bytes, known.gpu->shared_per_block_bytes) << caps.name;
    EXPECT_NEAR(caps.gpu->memory_gbps, known.gpu->memory_gbps, 0.05 * known.gpu->memory_gbps) << caps.name;
    EXPECT_EQ(caps.gpu->tensor_f16_tflops, known.gpu->tensor_f16_tflops) << caps.name;
    EXPECT_EQ(caps.gpu->missing, "");
  }
  EXPECT_EQ(ErrorOf([&] { DeviceCaps::Gpu(99); }).expected(), "0 to 3, a GPU of this machine");
}

}  // namespace
}  // namespace regard::emulator

int main(int argc, char** argv) {
  setenv("FAKE_CUDA_GPUS", regard::emulator::kGpuList, 1);
  setenv("REGARD_LIBCUDA", REGARD_FAKE_LIBCUDA, 1);
  setenv("REGARD_NVRTC", REGARD_FAKE_NVRTC, 1);
  setenv("REGARD_CUDA_CACHE", REGARD_FAKE_CACHE, 1);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
