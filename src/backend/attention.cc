// The one-call API: problem, selection, plan, launch; results and workspace allocated where the caller gave none.
#include "regard/attention.h"

#include <memory>
#include <optional>
#include <string>

#include "src/backend/device_of.h"
#include "src/cuda/allocate.h"

namespace regard {
namespace {

// Output tensors as q lies: (B, Sq, Hq, Dv) and (B, Hq, Sq), or (Tq, Hq, Dv) and (Hq, Tq).
OwnedTensor MakeOut(const AttentionArgs& a, const Problem& p) {
  return a.q.rank == 3 ? OwnedTensor(p.OutType(), {a.q.shape[0], p.heads_q, p.head_dim_v}, a.q.device)
                       : OwnedTensor(p.OutType(), {a.q.shape[0], a.q.shape[1], p.heads_q, p.head_dim_v}, a.q.device);
}
OwnedTensor MakeLse(const AttentionArgs& a, const Problem& p) {
  return a.q.rank == 3 ? OwnedTensor(DType::kF32, {p.heads_q, a.q.shape[0]}, a.q.device)
                       : OwnedTensor(DType::kF32, {a.q.shape[0], p.heads_q, a.q.shape[1]}, a.q.device);
}

// A gradient of the shape of t, where the caller brought no memory for it.
void MakeGradient(const TensorView& t, DType dtype, TensorView& gradient, OwnedTensor& own) {
  if (gradient.data != nullptr) return;
  own = t.rank == 3 ? OwnedTensor(dtype, {t.shape[0], t.shape[1], t.shape[2]}, t.device)
                    : OwnedTensor(dtype, {t.shape[0], t.shape[1], t.shape[2], t.shape[3]}, t.device);
  gradient = own.view();
}

// The caller's workspace, or one of our own (uninitialised) until destruction.
class CallWorkspace {
 public:
  CallWorkspace(const Plan& plan, const CallControl& control, Device device) : given_(control.workspace) {
    if (given_.data != nullptr) return;
    given_.bytes = plan.workspace_bytes();
    if (device.type == DeviceType::kCuda) {
      gpu_.emplace(device.index, given_.bytes, control.stream);
      given_.data = gpu_->data();
    } else {
      cpu_.reset(new std::byte[given_.bytes]);
      given_.data = cpu_.get();
    }
  }
  Workspace get() const { return given_; }

 private:
  Workspace given_;
  std::unique_ptr<std::byte[]> cpu_;
  std::optional<cuda::StreamBuffer> gpu_;
};

}  // namespace

AttentionResult Attention(AttentionArgs a, const AttentionOptions& options, bool want_lse, const CallControl& control) {
  Problem p = ProblemOf(a, options);
  p.lse = want_lse || a.lse;
  Validate(p);
  AttentionResult result;
  const DeviceCaps& caps = CapsOf("q", a.q);
  result.selection = control.choice ? Select(p, caps, *control.choice) : Select(p, caps);
  const Plan plan(p, result.selection, control.executor);
  if (a.out.data == nullptr) {
    result.out = MakeOut(a, p);
    a.out = result.out.view();
  }
  if (p.lse && !a.lse) {
    result.lse = MakeLse(a, p);
    a.lse = result.lse.view();
  }
  const CallWorkspace workspace(plan, control, a.q.device);
  Launch(plan, a, workspace.get(), control.stream);
  return result;
}

BackwardResult AttentionBackward(BackwardArgs a, const AttentionOptions& options, const CallControl& control) {
  const Problem p = BackwardProblemOf(a, options);
  Validate(p);
  BackwardResult result;
  const DeviceCaps& caps = CapsOf("q", a.forward.q);
  result.selection = control.choice ? Select(p, caps, *control.choice) : Select(p, caps);
  const Plan plan(p, result.selection, control.executor);
  MakeGradient(a.forward.q, p.GradType(), a.dq, result.dq);
  MakeGradient(a.forward.k, p.GradType(), a.dk, result.dk);
  MakeGradient(a.forward.v, p.GradType(), a.dv, result.dv);
  const CallWorkspace workspace(plan, control, a.forward.q.device);
  LaunchBackward(plan, a, workspace.get(), control.stream);
  return result;
}

AttentionResult VarlenAttention(AttentionArgs a, const AttentionOptions& options, bool want_lse,
                                const CallControl& control) {
  if (!a.cu_seqlens_q) throw Error("cu_seqlens_q", "absent", "(B + 1) entries: VarlenAttention takes packed q");
  return Attention(std::move(a), options, want_lse, control);
}

AttentionResult WithKvCache(AttentionArgs a, const AttentionOptions& options, bool want_lse,
                            const CallControl& control) {
  if (!a.cache_seqlens) throw Error("cache_seqlens", "absent", "(B) entries: the keys that each row of the cache holds");
  if (a.k_new.has_value() != a.v_new.has_value()) {
    throw Error(a.k_new ? "v_new" : "k_new", "absent", "both k_new and v_new, or neither");
  }
  return Attention(std::move(a), options, want_lse, control);
}

}  // namespace regard
