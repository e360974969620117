// Reads Python arguments (arguments.h). A call's keywords are compared by address first: CPython interns them.
#include "python/src/arguments.h"

#include <string_view>
#include <vector>

#include "src/core/suggest.h"

namespace regard::python {
namespace {

constexpr Arg kResults[] = {kOut, kOutDtype, kReturnLse};

PyObject* choice_variable = nullptr;

const std::array<PyObject*, kArgCount>& InternedNames() {
  static const std::array<PyObject*, kArgCount> names = [] {
    std::array<PyObject*, kArgCount> made{};
    for (std::size_t i = 0; i < made.size(); ++i) made[i] = PyUnicode_InternFromString(kArgNames[i]);
    return made;
  }();
  return names;
}

template <class Visit>
void ForEachArg(const Signature& s, Visit&& visit) {
  for (const Arg a : s.positional) visit(a);
  for (const Arg a : s.keyword_only) visit(a);
  for (const Arg a : s.options) visit(a);
  if (s.results) {
    for (const Arg a : kResults) visit(a);
  }
}

[[noreturn]] void ThrowUnknown(const Signature& s, PyObject* name) {
  const char* text = PyUnicode_AsUTF8(name);
  if (text == nullptr) throw PythonError();
  std::vector<std::string_view> known;
  ForEachArg(s, [&](Arg a) { known.push_back(kArgNames[a]); });
  const std::string nearest = Nearest(text, known);
  throw UsageError(text, "an unknown argument",
                   std::string("an argument of ") + s.name + (nearest.empty() ? "" : "; the nearest is " + nearest));
}

// The argument of that name, or kArgCount.
Arg Find(const Signature& s, PyObject* name) {
  const auto& names = InternedNames();
  Arg found = kArgCount;
  ForEachArg(s, [&](Arg a) {
    if (names[a] == name) found = a;
  });
  if (found != kArgCount) return found;
  ForEachArg(s, [&](Arg a) {
    if (found == kArgCount && PyUnicode_Compare(names[a], name) == 0) found = a;
  });
  return found;
}

}  // namespace

const std::array<const char*, kArgCount> kArgNames = {
    "q", "k", "v", "k_cache", "v_cache", "k_new", "v_new",
    "cu_seqlens_q", "cu_seqlens_kv", "block_table", "seqlens_kv", "kv_indptr", "kv_indices", "kv_last_page_len",
    "kv_layout", "cache_seqlens", "cache_batch_idx", "cu_seqlens_new", "rotary_cos", "rotary_sin", "rotary",
    "rotary_seqlens", "scale", "causal", "window", "chunk", "softcap", "alibi_slopes", "bias", "mask", "sink", "qv",
    "leftpad", "q_offset", "seqused_q", "seqused_kv", "q_descale", "k_descale", "v_descale", "dropout", "seed",
    "offset", "invariance", "kernel", "max_seqlen_q", "max_seqlen_kv", "out", "out_dtype", "return_lse", "o_a", "lse_a", "o_b", "lse_b",
    "dout", "lse", "dlse", "dq", "dk", "dv", "dbias", "dsink", "grad_dtype"};

Slots Bind(const Signature& s, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  Slots slots;
  std::array<bool, kArgCount> given{};
  if (static_cast<std::size_t>(count) > s.positional.size()) {
    throw UsageError(s.name, std::to_string(count) + " positional arguments",
                     "at most " + std::to_string(s.positional.size()) + "; the others go by name");
  }
  for (Py_ssize_t i = 0; i < count; ++i) {
    const Arg arg = s.positional[static_cast<std::size_t>(i)];
    slots.value[arg] = args[i];
    given[arg] = true;
  }
  const Py_ssize_t named = keywords != nullptr ? PyTuple_GET_SIZE(keywords) : 0;
  for (Py_ssize_t i = 0; i < named; ++i) {
    PyObject* name = PyTuple_GET_ITEM(keywords, i);
    const Arg arg = Find(s, name);
    if (arg == kArgCount) ThrowUnknown(s, name);
    if (given[arg]) throw UsageError(kArgNames[arg], "given by position and by name", "one of the two");
    slots.value[arg] = args[count + i];
    given[arg] = true;
  }
  for (PyObject*& value : slots.value) {
    if (value == Py_None) value = nullptr;
  }
  const auto require = [&](Arg arg) {
    if (slots[arg] == nullptr) throw UsageError(kArgNames[arg], "absent", std::string("an argument of ") + s.name);
  };
  for (std::size_t i = 0; i < s.required; ++i) require(s.positional[i]);
  for (const Arg arg : s.must) require(arg);
  return slots;
}

bool BoolOf(PyObject* object, const char* field) {
  if (object == nullptr || object == Py_False) return false;
  if (object == Py_True) return true;
  if (PyIndex_Check(object) || TypeName(object).starts_with("numpy.bool")) {
    const int truth = PyObject_IsTrue(object);
    if (truth < 0) throw PythonError();
    return truth != 0;
  }
  throw UsageError(field, TypeName(object), "True or False");
}

std::int64_t IntOf(PyObject* object, const char* field) {
  if (!PyIndex_Check(object) || PyBool_Check(object)) throw UsageError(field, TypeName(object), "a whole number");
  const Object number = Object::Steal(PyNumber_Index(object));
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(number.get(), &overflow);
  if (overflow != 0) throw Error(field, "a number beyond 64 bits", "a whole number of 64 bits");
  return value;
}

double DoubleOf(PyObject* object, const char* field) {
  if (PyFloat_CheckExact(object)) return PyFloat_AS_DOUBLE(object);
  if (!PyNumber_Check(object) || PyBool_Check(object)) throw UsageError(field, TypeName(object), "a number");
  PyObject* number = PyNumber_Float(object);
  if (number == nullptr) throw UsageError(field, TypeName(object) + " (" + "no single number" + ")", "a number");
  const Object owned = Object::Steal(number);
  return PyFloat_AS_DOUBLE(number);
}

std::string TextOf(PyObject* object, const char* field) {
  if (!PyUnicode_Check(object)) throw UsageError(field, TypeName(object), "a string");
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(object, &size);
  if (text == nullptr) throw PythonError();
  return {text, static_cast<std::size_t>(size)};
}

namespace {

std::uint64_t Unsigned(const Slots& slots, Arg arg) {
  PyObject* object = slots[arg];
  if (object == nullptr) return 0;
  if (!PyIndex_Check(object) || PyBool_Check(object)) throw UsageError(kArgNames[arg], TypeName(object), "a whole number");
  const Object number = Object::Steal(PyNumber_Index(object));
  const unsigned long long value = PyLong_AsUnsignedLongLong(number.get());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    const Object words = Object::Steal(PyObject_Str(number.get()));
    throw Error(kArgNames[arg], TextOf(words.get(), kArgNames[arg]), "0 to 2^64 - 1");
  }
  return value;
}

void ReadWindow(PyObject* object, AttentionOptions& options) {
  if (object == nullptr) return;
  if (!PyTuple_Check(object) && !PyList_Check(object)) {
    throw UsageError("window", TypeName(object), "a pair (left, right) of whole numbers or None");
  }
  const Object pair = Object::Steal(PySequence_Fast(object, "a pair"));
  if (PySequence_Fast_GET_SIZE(pair.get()) != 2) {
    throw UsageError("window", std::to_string(PySequence_Fast_GET_SIZE(pair.get())) + " entries", "a pair (left, right)");
  }
  const auto side = [&](Py_ssize_t i, const char* field) -> std::optional<std::int64_t> {
    PyObject* value = PySequence_Fast_GET_ITEM(pair.get(), i);
    if (value == Py_None) return std::nullopt;
    return IntOf(value, field);
  };
  options.window_left = side(0, "window[0]");
  options.window_right = side(1, "window[1]");
}

Invariance InvarianceOf(PyObject* object) {
  const std::string text = TextOf(object, "invariance");
  if (text == "full") return Invariance::kFull;
  if (text == "batch") return Invariance::kBatch;
  if (text == "none") return Invariance::kNone;
  throw Error("invariance", text, "full, batch or none");
}

}  // namespace

std::optional<TensorView> Tensor(const Slots& slots, Arg arg, Holder& holder, Access access) {
  if (slots[arg] == nullptr) return std::nullopt;
  return ViewOf(slots[arg], kArgNames[arg], access, holder);
}

std::optional<TensorView> Table(const Slots& slots, Arg arg, Holder& holder) {
  if (slots[arg] == nullptr) return std::nullopt;
  return TableOf(slots[arg], kArgNames[arg], holder);
}

void ReadOptions(const Slots& slots, Holder& holder, AttentionArgs& args, AttentionOptions& options) {
  if (PyObject* scale = slots[kScale]) options.scale = DoubleOf(scale, "scale");
  options.causal = BoolOf(slots[kCausal], "causal");
  ReadWindow(slots[kWindow], options);
  if (PyObject* chunk = slots[kChunk]) options.chunk = IntOf(chunk, "chunk");
  if (PyObject* softcap = slots[kSoftcap]) options.softcap = DoubleOf(softcap, "softcap");
  if (PyObject* dropout = slots[kDropout]) options.dropout = DoubleOf(dropout, "dropout");
  if (PyObject* invariance = slots[kInvariance]) options.invariance = InvarianceOf(invariance);
  args.dropout_seed = Unsigned(slots, kSeed);
  args.dropout_offset = Unsigned(slots, kOffset);
  if (PyObject* longest = slots[kMaxSeqlenQ]) args.max_seqlen_q = IntOf(longest, "max_seqlen_q");
  if (PyObject* longest = slots[kMaxSeqlenKv]) args.max_seqlen_kv = IntOf(longest, "max_seqlen_kv");
  args.alibi_slopes = Tensor(slots, kAlibiSlopes, holder);
  args.bias = Tensor(slots, kBias, holder);
  args.mask = Tensor(slots, kMask, holder);
  args.sink = Tensor(slots, kSink, holder);
  args.qv = Tensor(slots, kQv, holder);
  args.q_descale = Tensor(slots, kQDescale, holder);
  args.k_descale = Tensor(slots, kKDescale, holder);
  args.v_descale = Tensor(slots, kVDescale, holder);
  args.leftpad = Table(slots, kLeftpad, holder);
  args.q_offset = Table(slots, kQOffset, holder);
  args.seqused_q = Table(slots, kSequsedQ, holder);
  args.seqused_kv = Table(slots, kSequsedKv, holder);
}

KvLayout LayoutOf(const Slots& slots) {
  if (slots[kKvLayout] == nullptr) return KvLayout::kNHD;
  const std::string text = TextOf(slots[kKvLayout], "kv_layout");
  if (text == "NHD") return KvLayout::kNHD;
  if (text == "HND") return KvLayout::kHND;
  throw Error("kv_layout", text, "NHD or HND");
}

Rotary RotaryOf(const Slots& slots) {
  if (slots[kRotary] == nullptr) return Rotary::kNone;
  const std::string text = TextOf(slots[kRotary], "rotary");
  if (text == "none") return Rotary::kNone;
  if (text == "interleaved") return Rotary::kInterleaved;
  if (text == "half") return Rotary::kHalf;
  throw Error("rotary", text, "none, interleaved or half");
}

std::vector<std::string> PatternsOf(PyObject* object, const char* field) {
  if (PyUnicode_Check(object)) return {TextOf(object, field)};
  if (!PyTuple_Check(object) && !PyList_Check(object)) {
    throw UsageError(field, TypeName(object), "a kernel's name, a dotted prefix of one, or a list of them");
  }
  const Object items = Object::Steal(PySequence_Fast(object, "a list"));
  std::vector<std::string> patterns;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items.get()); ++i) {
    patterns.push_back(TextOf(PySequence_Fast_GET_ITEM(items.get(), i), field));
  }
  return patterns;
}

void SetChoiceVariable(PyObject* variable) { choice_variable = Py_NewRef(variable); }

std::optional<KernelChoice> ChoiceOf(PyObject* kernel) {
  if (kernel != nullptr) return KernelChoice{PatternsOf(kernel, "kernel"), {}};
  if (choice_variable == nullptr) return std::nullopt;
  PyObject* found = nullptr;
  if (PyContextVar_Get(choice_variable, nullptr, &found) != 0) throw PythonError();
  if (found == nullptr) return std::nullopt;
  const Object pair = Object::Steal(found);
  if (!PyTuple_Check(found) || PyTuple_GET_SIZE(found) != 2) return std::nullopt;
  return KernelChoice{PatternsOf(PyTuple_GET_ITEM(found, 0), "priority"),
                      PatternsOf(PyTuple_GET_ITEM(found, 1), "exclude")};
}

}  // namespace regard::python
