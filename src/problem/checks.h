// The steps of ResolveArgs. Each later step relies on the earlier ones:
//   CheckViews      what the views claim: presence, device, dtype, rank, shape, stride, address, overlap. Reads no element.
//   FillSequences   lengths -> Sequence array. Reads index tensors only where their shapes allow; checks nothing.
//   CheckSequences  lengths and row numbers: order, range, agreement, capacity.
//   CheckTables     page numbers, and that no two appends of the call write one slot.
// Every refusal is an Error whose field is the AttentionArgs member, with an index where that helps. docs/validation.md
// lists them. Nothing here owns memory or allocates, unless it throws.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "src/problem/sequence.h"

namespace regard::checks {

void CheckViews(const Problem& bounds, const AttentionArgs& args, Device device = {});
void FillSequences(const Problem& bounds, const AttentionArgs& args, std::span<Sequence> sequences) noexcept;
void CheckSequences(const Problem& bounds, const AttentionArgs& args, std::span<const Sequence> sequences);
void CheckTables(const Problem& bounds, const AttentionArgs& args, std::span<const Sequence> sequences,
                 std::span<std::byte> scratch);
// The part of CheckViews that keeps written memory apart from everything else.
void CheckOverlap(const AttentionArgs& args);
// The same for the gradients of a backward call, whose other tensors are all read only.
void CheckBackwardOverlap(const BackwardArgs& args);
// CheckViews of a backward call.
void CheckBackwardViews(const Problem& bounds, const BackwardArgs& args, Device device = {});

// A run of slots that an append writes, numbered through the whole cache: row * row capacity + position, or
// page * page_size + slot.
struct SlotRun {
  std::int64_t begin = 0, end = 0;
};

// Every optional tensor of a call, with the name that messages use.
struct Member {
  const char* name;
  std::optional<TensorView> AttentionArgs::*view;
};
std::span<const Member> OptionalMembers() noexcept;

// What a backward call adds, the gradients that it writes first; view is null where it is absent.
struct BackwardMember {
  const char* name;
  const TensorView* view;
};
std::array<BackwardMember, 7> BackwardMembers(const BackwardArgs& args) noexcept;

// Bytes that a view may touch: [begin, end) as addresses; empty where it has no element.
struct ByteSpan {
  std::uintptr_t begin = 0, end = 0;
  bool empty() const noexcept { return begin >= end; }
};
// Only for views whose extents and strides CheckViews found free of overflow.
ByteSpan TouchedBytes(const TensorView& v) noexcept;

// i32 data of an index tensor, or nullptr.
inline const std::int32_t* Ints(const std::optional<TensorView>& t) noexcept {
  return t ? static_cast<const std::int32_t*>(t->data) : nullptr;
}

// "name[i]" and "name[i][j]".
std::string At(const char* name, std::int64_t i);
std::string At(const char* name, std::int64_t i, std::int64_t j);

}  // namespace regard::checks
