// C structs to their C++ counterparts.
//
// struct_size: what the caller's header had. A shorter struct is an older one, and its missing fields are zero, which
// means absent everywhere. A longer one is newer: its extra bytes must be zero, since nothing here could honour them.

#include "src/core/c_api_convert.h"

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>

#include "regard/status.h"

namespace regard::c_api {
namespace {

// Far above any struct of this API; a larger size is an uninitialised field.
constexpr std::size_t kLargestStruct = 4096;

template <class T>
T ReadSized(const T* from, const char* name) {
  T known{};
  const std::size_t size = from->struct_size;
  if (size < sizeof(std::size_t) || size > kLargestStruct) {
    throw Error(std::string(name) + ".struct_size", std::to_string(size), "sizeof(regard_" + std::string(name) + ")");
  }
  std::memcpy(&known, from, size < sizeof(T) ? size : sizeof(T));
  const auto* bytes = reinterpret_cast<const unsigned char*>(from);
  for (std::size_t i = sizeof(T); i < size; ++i) {
    if (bytes[i] != 0) {
      throw Error(std::string(name) + ".struct_size",
                  std::to_string(size) + " with a field set that this library does not know",
                  "fields of regard " REGARD_VERSION_STRING " only");
    }
  }
  return known;
}

[[noreturn]] void OutOfRange(const char* tensor, const char* part, std::int64_t value, const char* expected) {
  throw Error(std::string(tensor) + "." + part, std::to_string(value), expected);
}

void Maybe(const char* field, const regard_tensor* tensor, std::optional<TensorView>* view) {
  if (tensor != nullptr) *view = ToView(tensor, field);
}

bool Flag(const char* field, std::int32_t value) {
  if (value != 0 && value != 1) throw Error(field, std::to_string(value), "0 or 1");
  return value == 1;
}

template <class T>
std::optional<T> Copy(const T* value) {
  return value == nullptr ? std::nullopt : std::optional<T>(*value);
}

std::vector<std::string> Split(const char* field, const char* text) {
  std::vector<std::string> words;
  if (text == nullptr) return words;
  for (std::string_view rest = text;;) {
    const std::size_t comma = rest.find(',');
    words.emplace_back(rest.substr(0, comma));
    if (words.back().empty()) throw Error(field, "\"" + std::string(text) + "\"", "names with commas between");
    if (comma == std::string_view::npos) return words;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace

static_assert(REGARD_MAX_RANK == TensorView::kMaxRank);
static_assert(REGARD_BOOL == static_cast<int>(DType::kBool) && REGARD_F8E4M3 == static_cast<int>(DType::kF8E4M3));
static_assert(REGARD_OPENCL == static_cast<int>(DeviceType::kOpenCl));
static_assert(REGARD_ROTARY_HALF == static_cast<int>(Rotary::kHalf));
static_assert(REGARD_INVARIANCE_NONE == static_cast<int>(Invariance::kNone));

TensorView ToView(const regard_tensor* tensor, const char* field) {
  if (tensor == nullptr) throw Error(field, "null", "a tensor");
  if (tensor->rank < 0 || tensor->rank > REGARD_MAX_RANK) OutOfRange(field, "rank", tensor->rank, "0 to 5");
  if (tensor->dtype < 0 || tensor->dtype > REGARD_BOOL) OutOfRange(field, "dtype", tensor->dtype, "a regard_dtype");
  if (tensor->device < 0 || tensor->device > REGARD_OPENCL) {
    OutOfRange(field, "device", tensor->device, "a regard_device");
  }
  TensorView view;
  view.data = tensor->data;
  view.dtype = static_cast<DType>(tensor->dtype);
  view.device = {static_cast<DeviceType>(tensor->device), tensor->device_index};
  view.rank = tensor->rank;
  for (int d = 0; d < view.rank; ++d) {
    if (tensor->shape[d] < 0) OutOfRange(field, "shape", tensor->shape[d], "no negative extent");
    view.shape[d] = tensor->shape[d];
    view.stride[d] = tensor->stride[d];
  }
  return view;
}

AttentionArgs ToArgs(const regard_args* args, bool needs_out) {
  if (args == nullptr) throw Error("args", "null", "a regard_args");
  const regard_args c = ReadSized(args, "args");
  AttentionArgs a;
  a.q = ToView(c.q, "q");
  a.k = ToView(c.k, "k");
  a.v = ToView(c.v, "v");
  if (needs_out || c.out != nullptr) a.out = ToView(c.out, "out");
  if (needs_out && a.out.data == nullptr && a.out.Elements() > 0) {
    throw Error("out.data", "null", "memory for the result");
  }
  Maybe("lse", c.lse, &a.lse);
  Maybe("qv", c.qv, &a.qv);
  Maybe("cu_seqlens_q", c.cu_seqlens_q, &a.cu_seqlens_q);
  Maybe("cu_seqlens_kv", c.cu_seqlens_kv, &a.cu_seqlens_kv);
  Maybe("seqused_q", c.seqused_q, &a.seqused_q);
  Maybe("seqused_kv", c.seqused_kv, &a.seqused_kv);
  Maybe("seqlens_kv", c.seqlens_kv, &a.seqlens_kv);
  Maybe("block_table", c.block_table, &a.block_table);
  Maybe("kv_indptr", c.kv_indptr, &a.kv_indptr);
  Maybe("kv_indices", c.kv_indices, &a.kv_indices);
  Maybe("kv_last_page_len", c.kv_last_page_len, &a.kv_last_page_len);
  Maybe("q_offset", c.q_offset, &a.q_offset);
  Maybe("leftpad", c.leftpad, &a.leftpad);
  Maybe("k_new", c.k_new, &a.k_new);
  Maybe("v_new", c.v_new, &a.v_new);
  Maybe("cu_seqlens_new", c.cu_seqlens_new, &a.cu_seqlens_new);
  Maybe("cache_seqlens", c.cache_seqlens, &a.cache_seqlens);
  Maybe("cache_batch_idx", c.cache_batch_idx, &a.cache_batch_idx);
  Maybe("rotary_cos", c.rotary_cos, &a.rotary_cos);
  Maybe("rotary_sin", c.rotary_sin, &a.rotary_sin);
  Maybe("rotary_seqlens", c.rotary_seqlens, &a.rotary_seqlens);
  Maybe("alibi_slopes", c.alibi_slopes, &a.alibi_slopes);
  Maybe("bias", c.bias, &a.bias);
  Maybe("mask", c.mask, &a.mask);
  Maybe("sink", c.sink, &a.sink);
  Maybe("q_descale", c.q_descale, &a.q_descale);
  Maybe("k_descale", c.k_descale, &a.k_descale);
  Maybe("v_descale", c.v_descale, &a.v_descale);
  a.score_mod = {c.score_mod, c.score_mod_ctx};
  a.mask_mod = {c.mask_mod, c.mask_mod_ctx};
  a.dropout_seed = c.dropout_seed;
  a.dropout_offset = c.dropout_offset;
  a.max_seqlen_q = Copy(c.max_seqlen_q);
  a.max_seqlen_kv = Copy(c.max_seqlen_kv);
  return a;
}

Stream ToStream(const regard_args* args) {
  if (args == nullptr) throw Error("args", "null", "a regard_args");
  return {ReadSized(args, "args").stream};
}

BackwardArgs ToBackwardArgs(const regard_backward_args* args) {
  if (args == nullptr) throw Error("args", "null", "a regard_backward_args");
  const regard_backward_args c = ReadSized(args, "backward_args");
  if (c.forward == nullptr) throw Error("forward", "null", "the regard_args of the forward call");
  BackwardArgs a;
  a.forward = ToArgs(c.forward);
  a.dout = ToView(c.dout, "dout");
  Maybe("dlse", c.dlse, &a.dlse);
  // Here nothing is allocated for the caller.
  const auto written = [](const regard_tensor* tensor, const char* field) {
    const TensorView view = ToView(tensor, field);
    if (view.data == nullptr && view.Elements() > 0) throw Error(std::string(field) + ".data", "null", "memory for the result");
    return view;
  };
  a.dq = written(c.dq, "dq");
  a.dk = written(c.dk, "dk");
  a.dv = written(c.dv, "dv");
  Maybe("dbias", c.dbias, &a.dbias);
  Maybe("dsink", c.dsink, &a.dsink);
  return a;
}

AttentionOptions ToOptions(const regard_options* options) {
  AttentionOptions o;
  if (options == nullptr) return o;
  const regard_options c = ReadSized(options, "options");
  o.scale = Copy(c.scale);
  o.window_left = Copy(c.window_left);
  o.window_right = Copy(c.window_right);
  o.chunk = Copy(c.chunk);
  o.softcap = c.softcap;
  o.dropout = c.dropout;
  o.causal = Flag("options.causal", c.causal);
  if (c.rotary < 0 || c.rotary > REGARD_ROTARY_HALF) OutOfRange("options", "rotary", c.rotary, "a regard_rotary");
  o.rotary = static_cast<Rotary>(c.rotary);
  if (c.invariance < 0 || c.invariance > REGARD_INVARIANCE_NONE) {
    OutOfRange("options", "invariance", c.invariance, "a regard_invariance");
  }
  o.invariance = static_cast<Invariance>(c.invariance);
  if (c.reserved != 0) OutOfRange("options", "reserved", c.reserved, "0");
  return o;
}

KernelChoice ToChoice(const char* kernels, const char* exclude) {
  return {Split("kernels", kernels), Split("exclude", exclude)};
}

KernelChoice ToChoice(const regard_options* options) {
  if (options == nullptr) return {};
  const regard_options c = ReadSized(options, "options");
  return ToChoice(c.kernels, c.exclude);
}

}  // namespace regard::c_api
