// What every check of a view is made of: storage, shape, element type, presence. Each throws Error naming the view and the
// part of it that is wrong; nothing reads an element.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>

#include "regard/tensor.h"

namespace regard::checks {

// An extent that a tensor must have, and what it is called.
struct Dim {
  std::int64_t value;
  const char* name;
};
inline constexpr std::int64_t kAny = -1;

std::string Text(std::int64_t v);
std::string Field(const char* name, const char* part);  // "name.part"
std::string DTypeText(DType t);
std::string DeviceText(Device d);

// Rules that hold for every view: a known dtype, memory of the device, no 64-bit overflow in shape x stride, an aligned address.
void CheckStorage(const char* name, const TensorView& v, Device device);
// Rank and extents; then the last dim is contiguous.
void CheckShape(const char* name, const TensorView& v, std::initializer_list<Dim> dims);
void CheckDType(const char* name, const TensorView& v, DType want);
void CheckDType(const char* name, const TensorView& v, std::initializer_list<DType> allowed);
// An index tensor, if given: i32, of that shape, without gaps.
void CheckIndex(const char* name, const std::optional<TensorView>& t, std::initializer_list<Dim> dims);
// `given` and `wanted` agree; `what` ends the message: "a tensor: there is alibi in the plan".
void CheckPresence(const char* name, bool given, bool wanted, const char* what);

}  // namespace regard::checks
