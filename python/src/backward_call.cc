// attention_backward: the gradients of a call, by recomputation from its lse.
#include <memory>
#include <optional>
#include <span>

#include "python/src/arguments.h"
#include "python/src/calls.h"
#include "python/src/docs.h"
#include "python/src/run.h"
#include "regard/attention.h"

namespace regard::python {
namespace {

constexpr Arg kPositional[] = {kDOut, kQ, kK, kV, kOut, kLse};
constexpr Arg kNamed[] = {kDLse, kCuSeqlensQ, kCuSeqlensKv, kDQ, kDK, kDV, kDBias, kDSink, kGradDtype};
constexpr Signature kBackward{"attention_backward", kPositional, 6, kNamed, {}, kCallOptions, false};

PyObject* gradients_type = nullptr;

// A gradient: given by the caller, to be made, or not wanted.
class Gradient {
 public:
  Gradient(const Slots& slots, Arg arg, Holder& holder) : field_(kArgNames[arg]), given_(slots[arg]) {
    if (given_ == Py_True || given_ == Py_False) given_ = nullptr;
    if (given_ != nullptr) view_ = ViewOf(given_, field_, Access::kWrite, holder);
  }
  const std::optional<TensorView>& view() const { return view_; }
  // Makes one like `of` where none was given.
  void Make(PyObject* like, DType dtype, const TensorView& of, Holder& holder) {
    if (view_) return;
    made_.emplace(like, dtype, std::span(of.shape).first(static_cast<std::size_t>(of.rank)), field_, holder);
    view_ = made_->view();
  }
  Object Finish() { return made_ ? made_->Finish() : Object::Share(given_ != nullptr ? given_ : Py_None); }

 private:
  const char* field_;
  PyObject* given_;
  std::optional<TensorView> view_;
  std::optional<NewTensor> made_;
};

struct Call {
  Slots slots;
  Holder holder;
  BackwardArgs args;
  AttentionOptions options;
};

bool Wanted(const Slots& slots, Arg arg) { return slots[arg] != nullptr && slots[arg] != Py_False; }

void Read(PyObject* const* args, Py_ssize_t count, PyObject* keywords, Call& c) {
  c.slots = Bind(kBackward, args, count, keywords);
  const Slots& s = c.slots;
  AttentionArgs& forward = c.args.forward;
  c.args.dout = *Tensor(s, kDOut, c.holder);
  forward.q = *Tensor(s, kQ, c.holder);
  forward.k = *Tensor(s, kK, c.holder);
  forward.v = *Tensor(s, kV, c.holder);
  forward.out = *Tensor(s, kOut, c.holder);
  forward.lse = Tensor(s, kLse, c.holder);
  forward.cu_seqlens_q = Table(s, kCuSeqlensQ, c.holder);
  forward.cu_seqlens_kv = Table(s, kCuSeqlensKv, c.holder);
  c.args.dlse = Tensor(s, kDLse, c.holder);
  ReadOptions(s, c.holder, forward, c.options);
  if (Wanted(s, kDBias) && !forward.bias) throw Error("dbias", "wanted", "bias, whose gradient it is");
  if (Wanted(s, kDSink) && !forward.sink) throw Error("dsink", "wanted", "sink, whose gradient it is");
}

// The type of dq, dk and dv: grad_dtype, or that of those given, or q's.
DType GradType(const Call& c, std::initializer_list<const Gradient*> gradients) {
  std::optional<DType> type;
  for (const Gradient* g : gradients) {
    if (g->view() && !type) type = g->view()->dtype;
  }
  if (c.slots[kGradDtype] == nullptr) return type.value_or(c.args.forward.q.dtype);
  const DType wanted = DTypeOf(c.slots[kGradDtype], "grad_dtype");
  if (wanted != DType::kF32 && wanted != c.args.forward.q.dtype) {
    throw Error("grad_dtype", std::string(Name(wanted)), "f32, or the type of q");
  }
  return wanted;
}

PyObject* Backward(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  return Guarded([&]() -> PyObject* {
    Call c;
    Read(args, count, keywords, c);
    const Slots& s = c.slots;
    const AttentionArgs& forward = c.args.forward;
    Validate(BackwardProblemOf(c.args, c.options));
    Gradient dq(s, kDQ, c.holder), dk(s, kDK, c.holder), dv(s, kDV, c.holder);
    Gradient dbias(s, kDBias, c.holder), dsink(s, kDSink, c.holder);
    const DType type = GradType(c, {&dq, &dk, &dv});
    dq.Make(s[kQ], type, forward.q, c.holder);
    dk.Make(s[kQ], type, forward.k, c.holder);
    dv.Make(s[kQ], type, forward.v, c.holder);
    if (Wanted(s, kDBias)) dbias.Make(s[kQ], type == DType::kF32 ? type : forward.bias->dtype, *forward.bias, c.holder);
    if (Wanted(s, kDSink)) dsink.Make(s[kQ], DType::kF32, *forward.sink, c.holder);
    c.args.dq = *dq.view();
    c.args.dk = *dk.view();
    c.args.dv = *dv.view();
    c.args.dbias = dbias.view();
    c.args.dsink = dsink.view();
    const Problem p = BackwardProblemOf(c.args, c.options);
    Validate(p);
    Run(p, s[kQ], s[kKernel], c.holder, [&](const Plan& plan, Workspace workspace, Stream stream) {
      LaunchBackward(plan, c.args, workspace, stream);
    });
    const Object results[] = {dq.Finish(), dk.Finish(), dv.Finish(), dbias.Finish(), dsink.Finish()};
    return PyObject_CallFunctionObjArgs(gradients_type, results[0].get(), results[1].get(), results[2].get(),
                                        results[3].get(), results[4].get(), nullptr);
  });
}

PyObject* SetGradientsType(PyObject*, PyObject* type) {
  gradients_type = Py_NewRef(type);
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    Fast(kBackward.name, Backward, kBackwardDoc),
    {"set_gradients_type", SetGradientsType, METH_O, "set_gradients_type(type)\n--\n\nWhat attention_backward returns."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int AddBackwardCalls(PyObject* module) { return PyModule_AddFunctions(module, methods); }

std::optional<CallProblem> ProblemOfBackwardCall(std::string_view name, PyObject* const* args, Py_ssize_t count,
                                                 PyObject* keywords) {
  if (name != kBackward.name) return std::nullopt;
  Call c;
  Read(args, count, keywords, c);
  Problem p = BackwardProblemOf(c.args, c.options);
  const DType type = GradType(c, {});
  if (type != p.dtype) p.grad_dtype = type;
  p.dbias = Wanted(c.slots, kDBias);
  p.dsink = Wanted(c.slots, kDSink);
  Validate(p);
  return CallProblem{p, c.holder.place().device};
}

}  // namespace regard::python
