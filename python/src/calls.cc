// One call: arguments, problem, result tensors, selection and plan, launch without the GIL. The maps of a call.
#include "python/src/calls.h"

#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "python/src/arguments.h"
#include "python/src/docs.h"
#include "python/src/object.h"
#include "python/src/run.h"
#include "python/src/tensors.h"
#include "regard/attention.h"

namespace regard::python {
namespace {

constexpr Arg kQkv[] = {kQ, kK, kV};
constexpr Arg kVarlenPositional[] = {kQ, kK, kV, kCuSeqlensQ, kCuSeqlensKv};
constexpr Arg kVarlenNamed[] = {kBlockTable, kSeqlensKv, kKvIndptr, kKvIndices, kKvLastPageLen, kKvLayout};
constexpr Arg kCachePositional[] = {kQ, kKCache, kVCache, kKNew, kVNew};
constexpr Arg kCacheNamed[] = {kCacheSeqlens, kCacheBatchIdx, kBlockTable, kKvIndptr, kKvIndices, kKvLastPageLen, kKvLayout,
                               kCuSeqlensQ, kCuSeqlensNew, kRotaryCos, kRotarySin, kRotary, kRotarySeqlens};
constexpr Arg kCacheMust[] = {kCacheSeqlens};
constexpr Arg kMapNamed[] = {kBlockTable, kSeqlensKv,  kKvIndptr,      kKvIndices, kKvLastPageLen, kKvLayout,
                             kCacheSeqlens, kCacheBatchIdx, kRotaryCos, kRotarySin, kRotary,        kRotarySeqlens};
constexpr Arg kMergePositional[] = {kOA, kLseA, kOB, kLseB};

constexpr Signature kDense{"attention", kQkv, 3, {}, {}, kCallOptions, true};
constexpr Signature kHeadsFirst{"attention_heads_first", kQkv, 3, {}, {}, kCallOptions, true};
constexpr Signature kVarlen{"varlen_attention", kVarlenPositional, 4, kVarlenNamed, {}, kCallOptions, true};
constexpr Signature kCache{"with_kvcache", kCachePositional, 3, kCacheNamed, kCacheMust, kCallOptions, true};
constexpr Signature kMerge{"merge_states", kMergePositional, 4, {}, {}, {}, false};
constexpr Signature kProbabilities{"attention_probabilities", kVarlenPositional, 3, kMapNamed, {}, kMapOptions, false};
constexpr Signature kDropoutMask{"dropout_mask", kVarlenPositional, 3, kMapNamed, {}, kMapOptions, false};

struct Call {
  Slots slots;
  Holder holder;
  AttentionArgs args;
  AttentionOptions options;
};

void ReadPages(Call& c) {
  c.args.kv_layout = LayoutOf(c.slots);
  c.args.block_table = Table(c.slots, kBlockTable, c.holder);
  c.args.kv_indptr = Table(c.slots, kKvIndptr, c.holder);
  c.args.kv_indices = Table(c.slots, kKvIndices, c.holder);
  c.args.kv_last_page_len = Table(c.slots, kKvLastPageLen, c.holder);
}

void ReadDense(Call& c) {
  c.args.k = *Tensor(c.slots, kK, c.holder);
  c.args.v = *Tensor(c.slots, kV, c.holder);
}

// (B, H, S, D) as (B, S, H, D), and back.
TensorView HeadsSwapped(TensorView t) {
  if (t.rank == 4) {
    std::swap(t.shape[1], t.shape[2]);
    std::swap(t.stride[1], t.stride[2]);
  }
  return t;
}

void ReadHeadsFirst(Call& c) {
  ReadDense(c);
  for (TensorView* t : {&c.args.q, &c.args.k, &c.args.v}) *t = HeadsSwapped(*t);
}

void ReadVarlen(Call& c) {
  ReadDense(c);
  ReadPages(c);
  c.args.cu_seqlens_q = Table(c.slots, kCuSeqlensQ, c.holder);
  c.args.cu_seqlens_kv = Table(c.slots, kCuSeqlensKv, c.holder);
  c.args.seqlens_kv = Table(c.slots, kSeqlensKv, c.holder);
}

void ReadRotary(Call& c) {
  c.args.rotary_cos = Tensor(c.slots, kRotaryCos, c.holder);
  c.args.rotary_sin = Tensor(c.slots, kRotarySin, c.holder);
  c.args.rotary_seqlens = Table(c.slots, kRotarySeqlens, c.holder);
  c.options.rotary = RotaryOf(c.slots);
}

void ReadCache(Call& c) {
  const Slots& s = c.slots;
  if ((s[kKNew] != nullptr) != (s[kVNew] != nullptr)) {
    throw Error(s[kKNew] != nullptr ? "v_new" : "k_new", "absent", "both k_new and v_new, or neither");
  }
  const Access access = s[kKNew] != nullptr ? Access::kWrite : Access::kRead;
  c.args.k = *Tensor(s, kKCache, c.holder, access);
  c.args.v = *Tensor(s, kVCache, c.holder, access);
  c.args.k_new = Tensor(s, kKNew, c.holder);
  c.args.v_new = Tensor(s, kVNew, c.holder);
  ReadPages(c);
  c.args.cache_seqlens = Table(s, kCacheSeqlens, c.holder);
  c.args.cache_batch_idx = Table(s, kCacheBatchIdx, c.holder);
  c.args.cu_seqlens_q = Table(s, kCuSeqlensQ, c.holder);
  c.args.cu_seqlens_new = Table(s, kCuSeqlensNew, c.holder);
  ReadRotary(c);
}

// Any keys: dense, packed, paged, or a cache that nothing is appended to.
void ReadMap(Call& c) {
  ReadVarlen(c);
  c.args.cache_seqlens = Table(c.slots, kCacheSeqlens, c.holder);
  c.args.cache_batch_idx = Table(c.slots, kCacheBatchIdx, c.holder);
  ReadRotary(c);
}

void Read(const Signature& signature, Call& c) {
  c.args.q = *Tensor(c.slots, kQ, c.holder);
  if (&signature == &kDense) ReadDense(c);
  if (&signature == &kHeadsFirst) ReadHeadsFirst(c);
  if (&signature == &kVarlen) ReadVarlen(c);
  if (&signature == &kCache) ReadCache(c);
  if (&signature == &kProbabilities || &signature == &kDropoutMask) ReadMap(c);
  ReadOptions(c.slots, c.holder, c.args, c.options);
  if (&signature == &kHeadsFirst && c.args.qv) c.args.qv = HeadsSwapped(*c.args.qv);
}

// out as q lies, with v's width; lse (B, H, S) or (H, T).
std::array<std::int64_t, 4> OutShape(const AttentionArgs& a, const Problem& p) {
  if (a.q.rank == 3) return {a.q.shape[0], p.heads_q, p.head_dim_v, 0};
  return {a.q.shape[0], a.q.shape[1], p.heads_q, p.head_dim_v};
}
std::array<std::int64_t, 3> LseShape(const AttentionArgs& a, const Problem& p) {
  if (a.q.rank == 3) return {p.heads_q, a.q.shape[0], 0};
  return {a.q.shape[0], p.heads_q, a.q.shape[1]};
}

// Reads all arguments; the problem that they make.
Problem Prepare(const Signature& signature, PyObject* const* args, Py_ssize_t count, PyObject* keywords, Call& c) {
  c.slots = Bind(signature, args, count, keywords);
  Read(signature, c);
  if (c.slots[kOut] != nullptr) c.args.out = ViewOf(c.slots[kOut], "out", Access::kWrite, c.holder);
  if (&signature == &kHeadsFirst) c.args.out = HeadsSwapped(c.args.out);
  Problem p = ProblemOf(c.args, c.options);
  p.lse = BoolOf(c.slots[kReturnLse], "return_lse");
  if (c.slots[kOutDtype] != nullptr) {
    const DType wanted = DTypeOf(c.slots[kOutDtype], "out_dtype");
    if (c.slots[kOut] != nullptr && wanted != c.args.out.dtype) {
      throw Error("out", c.args.out.Describe(), "out_dtype, " + std::string(Name(wanted)));
    }
    if (wanted != p.OutType()) p.out_dtype = wanted;
  }
  Validate(p);
  return p;
}

PyObject* Attend(const Signature& signature, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  return Guarded([&]() -> PyObject* {
    Call c;
    const Problem p = Prepare(signature, args, count, keywords, c);
    const Slots& slots = c.slots;
    std::optional<NewTensor> out, lse;
    const std::size_t rank = c.args.q.rank == 3 ? 3 : 4;
    if (slots[kOut] == nullptr) {
      auto shape = OutShape(c.args, p);
      if (&signature == &kHeadsFirst) std::swap(shape[1], shape[2]);
      out.emplace(slots[kQ], p.OutType(), std::span(shape).first(rank), "out", c.holder);
      c.args.out = &signature == &kHeadsFirst ? HeadsSwapped(out->view()) : out->view();
    }
    if (p.lse) {
      const auto shape = LseShape(c.args, p);
      lse.emplace(slots[kQ], DType::kF32, std::span(shape).first(rank - 1), "lse", c.holder);
      c.args.lse = lse->view();
    }
    Run(p, slots[kQ], slots[kKernel], c.holder, [&](const Plan& plan, Workspace workspace, Stream stream) {
      Launch(plan, c.args, workspace, stream);
    });
    Object result = out ? out->Finish() : Object::Share(slots[kOut]);
    if (!lse) return result.Release();
    const Object sums = lse->Finish();
    return PyTuple_Pack(2, result.get(), sums.get());
  });
}

PyObject* Attention(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  return Attend(kDense, args, count, keywords);
}
PyObject* AttentionHeadsFirst(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  return Attend(kHeadsFirst, args, count, keywords);
}
PyObject* VarlenAttention(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  return Attend(kVarlen, args, count, keywords);
}
PyObject* WithKvCache(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  return Attend(kCache, args, count, keywords);
}

PyObject* MergeStatesOf(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  return Guarded([&]() -> PyObject* {
    const Slots slots = Bind(kMerge, args, count, keywords);
    Holder holder;
    const TensorView o_a = *Tensor(slots, kOA, holder), lse_a = *Tensor(slots, kLseA, holder);
    const TensorView o_b = *Tensor(slots, kOB, holder), lse_b = *Tensor(slots, kLseB, holder);
    const auto extents = [](const TensorView& t) { return std::span(t.shape).first(static_cast<std::size_t>(t.rank)); };
    if (o_a.rank < 1) throw Error("o_a", o_a.Describe(), "(B, S, H, Dv) or (T, H, Dv)");
    NewTensor out(slots[kOA], o_a.dtype, extents(o_a), "out", holder);
    NewTensor lse(slots[kOA], DType::kF32, extents(lse_a), "lse", holder);
    {
      const WithoutGil without;
      MergeStates(o_a, lse_a, o_b, lse_b, out.view(), lse.view(), holder.place().stream);
    }
    const Object merged = out.Finish(), sums = lse.Finish();
    return PyTuple_Pack(2, merged.get(), sums.get());
  });
}

// The (B, Hq, Sq, Skv) tensor that `make` fills, in the library of q.
PyObject* MapOf(const Signature& signature, OwnedTensor (*make)(const AttentionArgs&, const AttentionOptions&),
                PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  return Guarded([&]() -> PyObject* {
    Call c;
    c.slots = Bind(signature, args, count, keywords);
    Read(signature, c);
    if (c.holder.place().device.type != DeviceType::kCpu) {
      throw Error(c.holder.place().field, "a tensor in " + NameOf(c.holder.place().device),
                  std::string("tensors in host memory: ") + signature.name + " is computed there, to look at small cases");
    }
    OwnedTensor map;
    {
      const WithoutGil without;
      map = make(c.args, c.options);
    }
    const TensorView from = map.view();
    NewTensor result(c.slots[kQ], from.dtype, std::span(from.shape).first(4), signature.name, c.holder);
    const std::size_t bytes = static_cast<std::size_t>(from.Elements()) * SizeOf(from.dtype);
    if (bytes > 0) std::memcpy(result.view().data, from.data, bytes);
    return result.Finish().Release();
  });
}

PyObject* ProbabilitiesOf(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  return MapOf(kProbabilities, AttentionProbabilities, args, count, keywords);
}
PyObject* DropoutMaskOf(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  return MapOf(kDropoutMask, DropoutMask, args, count, keywords);
}

PyMethodDef methods[] = {
    Fast(kDense.name, Attention, kAttentionDoc),
    Fast(kHeadsFirst.name, AttentionHeadsFirst, kHeadsFirstDoc),
    Fast(kVarlen.name, VarlenAttention, kVarlenDoc),
    Fast(kCache.name, WithKvCache, kKvCacheDoc),
    Fast(kMerge.name, MergeStatesOf, kMergeDoc),
    Fast(kProbabilities.name, ProbabilitiesOf, kProbabilitiesDoc),
    Fast(kDropoutMask.name, DropoutMaskOf, kDropoutMaskDoc),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int AddCalls(PyObject* module) { return PyModule_AddFunctions(module, methods); }

std::optional<CallProblem> ProblemOfCall(std::string_view name, PyObject* const* args, Py_ssize_t count,
                                         PyObject* keywords) {
  for (const Signature* s : {&kDense, &kVarlen, &kCache}) {
    if (name != s->name) continue;
    Call c;
    const Problem p = Prepare(*s, args, count, keywords, c);
    return CallProblem{p, c.holder.place().device};
  }
  return std::nullopt;
}

}  // namespace regard::python
