#include "src/cuda/check_call.h"

#include <string>

#include "regard/status.h"
#include "src/cuda/driver/device_error.h"
#include "src/cuda/driver/memory.h"
#include "src/problem/checks.h"

namespace regard::cuda {
namespace {

std::string Text(std::int64_t n) {
  return std::to_string(n);
}

// Lengths that shapes alone give.
void CheckShapeLengths(const Problem& p, const AttentionArgs& a) {
  if (!p.varlen && a.q.shape[1] > p.seq_q) {
    throw Error("q.shape[1]", Text(a.q.shape[1]) + " rows", "at most " + Text(p.seq_q) + " (the plan's seq_q)");
  }
  const bool has_lengths = p.page_size || p.varlen || a.cache_seqlens || a.seqlens_kv || a.seqused_kv;
  if (!has_lengths && a.k.shape[1] > p.seq_kv) {
    throw Error("k.shape[1]", Text(a.k.shape[1]), "at most " + Text(p.seq_kv) + " keys (the plan's seq_kv)");
  }
  // Without tables the longest rows of bias and mask are known; a table's longer row sees nothing past their ends.
  const auto check = [&](const char* name, const std::optional<TensorView>& t, int dim, std::int64_t longest,
                         const char* what) {
    const std::int64_t extent = t ? t->shape[static_cast<std::size_t>(dim)] : 1;
    if (extent == 1 || extent >= longest) return;
    throw Error(checks::At((std::string(name) + ".shape").c_str(), dim), Text(extent),
                "1 or at least " + Text(longest) + " (longest " + what + ")");
  };
  if (!p.varlen && !a.seqused_q) {
    check("bias", a.bias, 2, a.q.shape[1], "queries");
    check("mask", a.mask, 2, a.q.shape[1], "queries");
  }
  if (!has_lengths) {
    check("bias", a.bias, 3, a.k.shape[1], "keys");
    check("mask", a.mask, 3, a.k.shape[1], "keys");
  }
}

// Kernels step through the three by one stride.
void CheckDescales(const AttentionArgs& a) {
  const TensorView* first = nullptr;
  const auto check = [&](const char* name, const std::optional<TensorView>& t) {
    if (!t) return;
    if (first && t->shape[0] > 1 && t->stride[0] != first->stride[0]) {
      throw Error(std::string(name) + ".stride[0]", Text(t->stride[0]),
                  Text(first->stride[0]) + ", as of the other descales: on a GPU they share it");
    }
    first = &*t;
  };
  check("q_descale", a.q_descale);
  check("k_descale", a.k_descale);
  check("v_descale", a.v_descale);
}

}  // namespace

void CheckCall(const Problem& bounds, const AttentionArgs& args, const BackwardArgs* backward, Device device) {
  DeviceErrorFlag::Of(device.index).Check();
  if (backward) {
    checks::CheckBackwardViews(bounds, *backward, device);
  } else {
    checks::CheckViews(bounds, args, device);
  }
  CheckShapeLengths(bounds, args);
  CheckDescales(args);
}

void CheckTables(int device, regard::Stream stream) {
  Synchronize(device, static_cast<abi::CUstream>(stream.handle));
  DeviceErrorFlag::Of(device).Check();
}

}  // namespace regard::cuda
