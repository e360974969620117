#include "src/cases/on_device.h"

#include <chrono>
#include <cstring>
#include <optional>
#include <vector>

#include "src/backend/plan_impl.h"
#include "src/cases/cases.h"
#include "src/cuda/driver/memory.h"
#include "src/problem/checks.h"

namespace regard::cases {

// Each tensor has a buffer of its own, of the bytes that its view may touch.
struct CaseOnDevice::Gpu {
  struct Tensor {
    void* host = nullptr;  // the first byte
    cuda::DeviceBuffer buffer;
    bool written = false;
  };

  Gpu(const Plan& plan, const BackwardArgs& host)
      : device(plan.impl().device), workspace(device.index, plan.workspace_bytes()) {
    call = host;
    AttentionArgs& a = call.forward;
    const bool backward = plan.problem().phase == Phase::kBackward, appends = a.k_new.has_value();
    Place(a.q, false);
    Place(a.k, appends);
    Place(a.v, appends);
    Place(a.out, !backward);
    for (const checks::Member& member : checks::OptionalMembers()) {
      if (auto& view = a.*member.view) Place(*view, member.view == &AttentionArgs::lse && !backward);
    }
    if (!backward) return;
    for (TensorView* view : {&call.dq, &call.dk, &call.dv}) Place(*view, true);
    for (auto* view : {&call.dbias, &call.dsink}) {
      if (*view) Place(**view, true);
    }
    Place(call.dout, false);
    if (call.dlse) Place(*call.dlse, false);
  }

  void Place(TensorView& view, bool written) {
    view.device = device;
    const checks::ByteSpan span = checks::TouchedBytes(view);
    if (span.empty()) return;
    Tensor tensor{reinterpret_cast<void*>(span.begin), cuda::DeviceBuffer(device.index, span.end - span.begin),
                  written};
    const std::ptrdiff_t offset = static_cast<std::byte*>(view.data) - static_cast<std::byte*>(tensor.host);
    view.data = static_cast<std::byte*>(tensor.buffer.data()) + offset;
    tensors.push_back(std::move(tensor));
  }

  Device device;
  BackwardArgs call;  // with addresses of the device
  std::vector<Tensor> tensors;
  cuda::DeviceBuffer workspace;
};

// The workspace begins as NaN throughout: nothing may rest on what it held.
CaseOnDevice::CaseOnDevice(const Plan& plan, const BackwardArgs& call) : plan_(plan), call_(call) {
  constexpr unsigned char kNan = 0xff;
  if (plan.impl().device.type == DeviceType::kCuda) {
    gpu_ = std::make_unique<Gpu>(plan, call);
    if (gpu_->workspace.bytes() > 0) gpu_->workspace.Fill(kNan);
    CopyIn();
  } else {
    workspace_ = Buffer(plan.workspace_bytes());
    if (workspace_.size() > 0) std::memset(workspace_.data(), kNan, workspace_.size());
  }
}
CaseOnDevice::~CaseOnDevice() = default;

void CaseOnDevice::CopyIn() {
  if (!gpu_) return;
  for (Gpu::Tensor& tensor : gpu_->tensors) tensor.buffer.CopyFromHost(tensor.host, tensor.buffer.bytes());
}

void CaseOnDevice::Launch() const {
  LaunchCall(plan_, gpu_ ? gpu_->call : call_, workspace());
}

double CaseOnDevice::Seconds(int launches) const {
  if (gpu_) {
    cuda::EventTimer timer(gpu_->device.index);
    timer.Begin(nullptr);
    for (int i = 0; i < launches; ++i) Launch();
    timer.End(nullptr);
    return timer.Seconds() / launches;
  }
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < launches; ++i) Launch();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / launches;
}

void CaseOnDevice::Finish() const {
  if (!gpu_) return;
  CheckDevice(gpu_->device);
  for (const Gpu::Tensor& tensor : gpu_->tensors) {
    if (tensor.written) tensor.buffer.CopyToHost(tensor.host, tensor.buffer.bytes());
  }
}

Workspace CaseOnDevice::workspace() const {
  if (gpu_) return {gpu_->workspace.data(), gpu_->workspace.bytes()};
  return {workspace_.data(), workspace_.size()};
}

const DeviceCaps& DeviceOfKernels(std::string_view pattern) {
  return pattern == "cuda" || pattern.starts_with("cuda.") ? DeviceCaps::Gpu(0) : DeviceCaps::Host();
}

const DeviceCaps* DeviceOfKernel(const KernelInfo& kernel, const DeviceCaps& cpu) {
  if (kernel.device == DeviceType::kCpu) return &cpu;
  return DeviceCaps::GpuCount() > 0 ? &DeviceCaps::Gpu(0) : nullptr;
}

}  // namespace regard::cases
