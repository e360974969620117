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
AttentionArgs& Case::args() { return impl->call.forward; }
const AttentionArgs& Case::args() const { return impl->call.forward; }
BackwardArgs& Case::call() { return impl->call; }
const BackwardArgs& Case::call() const { return impl->call; }

Case Case::Clone() const {
  Case copy;
  copy.impl = std::make_unique<Impl>();
  copy.impl->problem = impl->problem;
  copy.impl->call = impl->call;
  copy.impl->buffers.reserve(impl->buffers.size());
  for (const Buffer& buffer : impl->buffers) {
    copy.impl->buffers.emplace_back(buffer.size());
    std::memcpy(copy.impl->buffers.back().data(), buffer.data(), buffer.size());
  }
  BackwardArgs& call = copy.impl->call;
  AttentionArgs& args = call.forward;
  const auto rebase = [&](TensorView& view) { Rebase(view, impl->buffers, copy.impl->buffers); };
  for (TensorView* view : {&args.q, &args.k, &args.v, &args.out}) rebase(*view);
  for (const checks::Member& member : checks::OptionalMembers()) {
    if (auto& view = args.*member.view) rebase(*view);
  }
  if (impl->problem.phase != Phase::kBackward) return copy;
  for (TensorView* view : {&call.dout, &call.dq, &call.dk, &call.dv}) rebase(*view);
  for (std::optional<TensorView>* view : {&call.dlse, &call.dbias, &call.dsink}) {
    if (*view) rebase(**view);
  }
  return copy;
}

}  // namespace regard::cases
