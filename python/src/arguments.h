// The arguments of the calls: Python names to AttentionArgs, AttentionOptions and the choice of kernel.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "python/src/object.h"
#include "python/src/tensors.h"
#include "regard/attention.h"

namespace regard::python {

// Every argument that any call knows; kArgNames has their names in this order.
enum Arg : std::uint8_t {
  kQ, kK, kV, kKCache, kVCache, kKNew, kVNew,
  kCuSeqlensQ, kCuSeqlensKv, kBlockTable, kSeqlensKv, kKvIndptr, kKvIndices, kKvLastPageLen, kKvLayout,
  kCacheSeqlens, kCacheBatchIdx, kCuSeqlensNew, kRotaryCos, kRotarySin, kRotary, kRotarySeqlens,
  kScale, kCausal, kWindow, kChunk, kSoftcap, kAlibiSlopes, kBias, kMask, kSink, kQv, kLeftpad, kQOffset,
  kSequsedQ, kSequsedKv, kQDescale, kKDescale, kVDescale, kDropout, kSeed, kOffset, kInvariance, kKernel, kMaxSeqlenQ, kMaxSeqlenKv,
  kOut, kOutDtype, kReturnLse,
  kOA, kLseA, kOB, kLseB,
  kDOut, kLse, kDLse, kDQ, kDK, kDV, kDBias, kDSink, kGradDtype,
  kArgCount
};
extern const std::array<const char*, kArgCount> kArgNames;

// What all attention calls take by name: what is computed, then which kernel does it.
inline constexpr Arg kOptions[] = {
    kScale,    kCausal,   kWindow,    kChunk,     kSoftcap,  kAlibiSlopes, kBias,    kMask,   kSink, kQv,     kLeftpad,
    kQOffset,  kSequsedQ, kSequsedKv, kQDescale,  kKDescale, kVDescale,    kDropout, kSeed,   kOffset, kInvariance,
    kKernel,   kMaxSeqlenQ, kMaxSeqlenKv};
inline constexpr std::span<const Arg> kCallOptions = kOptions;
inline constexpr std::span<const Arg> kMapOptions = kCallOptions.first(kCallOptions.size() - 4);  // without the kernel

// The values of one call by argument; null where the caller gave none, or None.
struct Slots {
  std::array<PyObject*, kArgCount> value{};
  PyObject* operator[](Arg arg) const { return value[arg]; }
};

// A function as Python sees it.
struct Signature {
  const char* name;
  std::span<const Arg> positional;    // in order; the first `required` must be given
  std::size_t required;
  std::span<const Arg> keyword_only;  // beside those that the flags below add
  std::span<const Arg> must;          // keyword-only ones that must be given
  std::span<const Arg> options;       // kCallOptions, kMapOptions or nothing
  bool results;                       // out, out_dtype, return_lse
};

// Sorts a vectorcall's arguments into slots. Throws UsageError: unknown, repeated, missing, too many.
Slots Bind(const Signature& signature, PyObject* const* args, Py_ssize_t count, PyObject* keywords);

// The options that all attention calls share, tensors among them.
void ReadOptions(const Slots& slots, Holder& holder, AttentionArgs& args, AttentionOptions& options);
std::optional<TensorView> Tensor(const Slots& slots, Arg arg, Holder& holder, Access access = Access::kRead);
std::optional<TensorView> Table(const Slots& slots, Arg arg, Holder& holder);

bool BoolOf(PyObject* object, const char* field);  // null: false
std::int64_t IntOf(PyObject* object, const char* field);
double DoubleOf(PyObject* object, const char* field);
std::string TextOf(PyObject* object, const char* field);
KvLayout LayoutOf(const Slots& slots);
Rotary RotaryOf(const Slots& slots);

// kernel= of the call, else the innermost backends(...) of this context, else nothing.
std::optional<KernelChoice> ChoiceOf(PyObject* kernel);
std::vector<std::string> PatternsOf(PyObject* object, const char* field);  // a name, or a sequence of names
// The ContextVar of backends(...): None or a pair (priority, exclude) of tuples.
void SetChoiceVariable(PyObject* variable);

}  // namespace regard::python
