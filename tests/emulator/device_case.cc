// A view's bytes are those from its lowest to its highest element; gaps between rows travel too.
#include "tests/emulator/device_case.h"

#include <algorithm>
#include <cstdint>
#include <optional>

namespace regard::emulator {
namespace {

using Member = std::optional<TensorView> AttentionArgs::*;
constexpr Member kOptional[] = {&AttentionArgs::lse,
                                &AttentionArgs::qv,
                                &AttentionArgs::cu_seqlens_q,
                                &AttentionArgs::cu_seqlens_kv,
                                &AttentionArgs::seqused_q,
                                &AttentionArgs::seqused_kv,
                                &AttentionArgs::seqlens_kv,
                                &AttentionArgs::block_table,
                                &AttentionArgs::kv_indptr,
                                &AttentionArgs::kv_indices,
                                &AttentionArgs::kv_last_page_len,
                                &AttentionArgs::q_offset,
                                &AttentionArgs::leftpad,
                                &AttentionArgs::k_new,
                                &AttentionArgs::v_new,
                                &AttentionArgs::cu_seqlens_new,
                                &AttentionArgs::cache_seqlens,
                                &AttentionArgs::cache_batch_idx,
                                &AttentionArgs::rotary_cos,
                                &AttentionArgs::rotary_sin,
                                &AttentionArgs::rotary_seqlens,
                                &AttentionArgs::alibi_slopes,
                                &AttentionArgs::bias,
                                &AttentionArgs::mask,
                                &AttentionArgs::sink,
                                &AttentionArgs::q_descale,
                                &AttentionArgs::k_descale,
                                &AttentionArgs::v_descale};

struct Extent {
  std::int64_t low = 0, high = 0;  // bytes from the view's data on
};

Extent ExtentOf(const TensorView& view) {
  const auto size = static_cast<std::int64_t>(SizeOf(view.dtype));
  Extent extent{0, view.Elements() == 0 ? 0 : size};
  if (view.Elements() == 0) return extent;
  for (int d = 0; d < view.rank; ++d) {
    const auto n = static_cast<std::size_t>(d);
    const std::int64_t last = (view.shape[n] - 1) * view.stride[n] * size;
    (last < 0 ? extent.low : extent.high) += last;
  }
  return extent;
}

}  // namespace

DeviceCase::DeviceCase(const AttentionArgs& host, int device) : host_(host), device_(device), args_(host) {
  args_.q = Copy(host.q);
  args_.k = Copy(host.k);
  args_.v = Copy(host.v);
  args_.out = Copy(host.out);
  for (const auto member : kOptional) {
    if (host.*member) args_.*member = Copy(*(host.*member));
  }
}

TensorView DeviceCase::Copy(const TensorView& view) {
  const Extent extent = ExtentOf(view);
  const auto bytes = static_cast<std::size_t>(extent.high - extent.low);
  std::byte* const begin = static_cast<std::byte*>(view.data) + extent.low;
  // One byte stands for an empty tensor: a null address would mean that there is none.
  Block block{view, begin, cuda::DeviceBuffer(device_, std::max<std::size_t>(bytes, 1))};
  if (bytes > 0) block.memory.CopyFromHost(begin, bytes);
  TensorView copy = view;
  copy.device = {DeviceType::kCuda, device_};
  copy.data = static_cast<std::byte*>(block.memory.data()) - extent.low;
  blocks_.push_back(std::move(block));
  return copy;
}

void DeviceCase::CopyBack() const {
  const auto written = [&](const TensorView& view) {
    return view.data == host_.out.data || view.data == host_.k.data || view.data == host_.v.data ||
           (host_.lse && view.data == host_.lse->data);
  };
  for (const Block& block : blocks_) {
    const Extent extent = ExtentOf(block.host);
    if (!written(block.host) || extent.high == extent.low) continue;
    block.memory.CopyToHost(block.begin, static_cast<std::size_t>(extent.high - extent.low));
  }
}

}  // namespace regard::emulator
