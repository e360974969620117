// Case: ownership, and copies whose views point into the copy.
#include <cstring>

#include "src/cases/builder.h"
#include "src/problem/checks.h"

namespace regard::cases {
namespace {

// Moves `view` from the buffer that holds it to the one of the same number in `to`.
void Rebase(TensorView& view, const std::vector<Buffer>& from, const std::vector<Buffer>& to) {
  const auto* at = static_cast<const std::byte*>(view.data);
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (at < from[i].data() || at > from[i].data() + from[i].size()) continue;
    if (at == from[i].data() + from[i].size() && from[i].size() > 0) continue;
    view.data = to[i].data() + (at - from[i].data());
    return;
  }
}

}  // namespace

Case::Case() = default;
Case::~Case() = default;
Case::Case(Case&&) noexcept = default;
Case& Case::operator=(Case&&) noexcept = default;

const Problem& Case::problem() const { return impl->problem; }
AttentionArgs& Case::args() { return impl->args; }
const AttentionArgs& Case::args() const { return impl->args; }

Case Case::Clone() const {
  Case copy;
  copy.impl = std::make_unique<Impl>();
  copy.impl->problem = impl->problem;
  copy.impl->args = impl->args;
  copy.impl->buffers.reserve(impl->buffers.size());
  for (const Buffer& buffer : impl->buffers) {
    copy.impl->buffers.emplace_back(buffer.size());
    std::memcpy(copy.impl->buffers.back().data(), buffer.data(), buffer.size());
  }
  AttentionArgs& args = copy.impl->args;
  for (TensorView* view : {&args.q, &args.k, &args.v, &args.out}) Rebase(*view, impl->buffers, copy.impl->buffers);
  for (const checks::Member& member : checks::OptionalMembers()) {
    if (auto& view = args.*member.view) Rebase(*view, impl->buffers, copy.impl->buffers);
  }
  return copy;
}

}  // namespace regard::cases
