// The rules of view_checks.h.
#include "src/problem/view_checks.h"

#include <cstdint>

#include "regard/status.h"
#include "src/problem/checks.h"

namespace regard::checks {
namespace {

// No tensor in memory is longer; keeps all length arithmetic far from 64-bit overflow.
constexpr std::int64_t kMaxExtent = std::int64_t{1} << 48;

}  // namespace

std::string Text(std::int64_t v) {
  return std::to_string(v);
}
std::string Field(const char* name, const char* part) {
  return std::string(name) + "." + part;
}

std::string DTypeText(DType t) {
  return t <= DType::kBool ? std::string(Name(t)) : "code " + Text(static_cast<int>(t));
}

std::string DeviceText(Device d) {
  const char* kind = d.type == DeviceType::kCpu ? "cpu" : d.type == DeviceType::kCuda ? "cuda" : "opencl";
  return d.type == DeviceType::kCpu && d.index == 0 ? kind : kind + (":" + Text(d.index));
}

void CheckStorage(const char* name, const TensorView& v, Device device) {
  if (v.dtype > DType::kBool) throw Error(Field(name, "dtype"), DTypeText(v.dtype), "a known element type");
  if (v.rank < 1 || v.rank > TensorView::kMaxRank) {
    throw Error(Field(name, "rank"), Text(v.rank), "1 to " + Text(TensorView::kMaxRank));
  }
  if (v.device != device) {
    const bool to_gpu = device.type == DeviceType::kCuda && v.device.type == DeviceType::kCpu;
    throw Error(Field(name, "device"), DeviceText(v.device),
                DeviceText(device) + ", as q" + (to_gpu ? ": copy it there first, tables of lengths and pages too" : ""));
  }
  const auto size = static_cast<std::int64_t>(SizeOf(v.dtype));
  std::int64_t elements = 1, low = 0, high = 0;
  bool overflow = false, empty = false;
  for (int d = 0; d < v.rank; ++d) {
    const std::int64_t extent = v.shape[d];
    if (extent < 0 || extent > kMaxExtent) {
      throw Error(At(Field(name, "shape").c_str(), d), Text(extent), "0 to 2^48");
    }
    empty |= extent == 0;
    overflow |= __builtin_mul_overflow(elements, extent > 1 ? extent : 1, &elements);
    // An unused stride counts as well: no kernel may overflow by scaling it to bytes.
    std::int64_t reach = 0;
    overflow |= __builtin_mul_overflow(v.stride[d], size * (extent > 2 ? extent - 1 : 1), &reach);
    if (extent <= 1) continue;
    std::int64_t& side = reach < 0 ? low : high;
    overflow |= __builtin_add_overflow(side, reach, &side);
  }
  std::int64_t bytes = 0;
  overflow |= __builtin_mul_overflow(elements, size, &bytes) || __builtin_add_overflow(high, size, &high);
  if (overflow) throw Error(Field(name, "stride"), "shape x stride past 64 bits", "offsets that 64 bits can hold");
  if (empty) return;
  const auto address = reinterpret_cast<std::uintptr_t>(v.data);
  if (address == 0) throw Error(Field(name, "data"), "null", "an address; it has " + Text(elements) + " elements");
  if (address % static_cast<std::uintptr_t>(size) != 0) {
    throw Error(Field(name, "data"), "address " + std::to_string(address), "a multiple of " + Text(size) + " bytes");
  }
  std::uintptr_t end = 0;
  if (__builtin_add_overflow(address, low, &end) || __builtin_add_overflow(address, high, &end)) {
    throw Error(Field(name, "stride"), "bytes past the address space", "a tensor that lies in memory");
  }
}

void CheckShape(const char* name, const TensorView& v, std::initializer_list<Dim> dims) {
  if (v.rank != static_cast<int>(dims.size())) {
    std::string shape;
    for (const Dim& dim : dims) shape += (shape.empty() ? "" : ", ") + std::string(dim.name);
    throw Error(Field(name, "rank"), Text(v.rank), Text(static_cast<std::int64_t>(dims.size())) + ": (" + shape + ")");
  }
  int d = 0;
  for (const Dim& dim : dims) {
    if (dim.value != kAny && v.shape[d] != dim.value) {
      throw Error(At(Field(name, "shape").c_str(), d), Text(v.shape[d]), Text(dim.value) + " (" + dim.name + ")");
    }
    ++d;
  }
  if (v.shape[d - 1] > 1 && v.stride[d - 1] != 1) {
    throw Error(At(Field(name, "stride").c_str(), d - 1), Text(v.stride[d - 1]), "1: the last dim is contiguous");
  }
}

void CheckDType(const char* name, const TensorView& v, DType want) {
  if (v.dtype != want) throw Error(Field(name, "dtype"), DTypeText(v.dtype), DTypeText(want));
}

void CheckDType(const char* name, const TensorView& v, std::initializer_list<DType> allowed) {
  std::string list;
  for (const DType t : allowed) {
    if (v.dtype == t) return;
  }
  for (const DType t : allowed) {
    if (list.find(DTypeText(t)) == std::string::npos) list += (list.empty() ? "" : " or ") + DTypeText(t);
  }
  throw Error(Field(name, "dtype"), DTypeText(v.dtype), list);
}

void CheckIndex(const char* name, const std::optional<TensorView>& t, std::initializer_list<Dim> dims) {
  if (!t) return;
  CheckDType(name, *t, DType::kI32);
  CheckShape(name, *t, dims);
  if (t->rank == 2 && t->shape[0] > 1 && t->stride[0] != t->shape[1]) {
    throw Error(At(Field(name, "stride").c_str(), 0), Text(t->stride[0]),
                Text(t->shape[1]) + ": index tensors are contiguous");
  }
}

void CheckPresence(const char* name, bool given, bool wanted, const char* what) {
  if (given == wanted) return;
  throw Error(name, given ? "given" : "absent",
              given ? "absent: no " + std::string(what) : "a tensor: there is " + std::string(what));
}

}  // namespace regard::checks
