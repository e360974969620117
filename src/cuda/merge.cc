#include "src/cuda/merge.h"

#include <string>

#include "regard/device.h"
#include "regard/status.h"
#include "src/cuda/driver/functions.h"
#include "src/cuda/instances.h"
#include "src/cuda/params_of.h"

namespace regard::cuda {
namespace {

struct LsePlace {
  float* data;
  i64 batch, head;
};

LsePlace PlaceOf(const char* field, const TensorView& lse, bool packed) {
  const auto last = static_cast<std::size_t>(packed ? 1 : 2);
  if (lse.shape[last] > 1 && lse.stride[last] != 1) {
    throw Error(field, lse.Describe() + " with stride " + std::to_string(lse.stride[last]),
                "a contiguous last dim on a GPU");
  }
  return {static_cast<float*>(lse.data), packed ? 0 : lse.stride[0], lse.stride[packed ? 0 : 1]};
}

i32 Small(const char* what, std::int64_t n) {
  if (n > INT32_MAX) throw Error("o_a", std::to_string(n) + " " + what, "fewer than 2^31");
  return static_cast<i32>(n);
}

}  // namespace

void Merge(const TensorView& o_a, const TensorView& lse_a, const TensorView& o_b, const TensorView& lse_b,
           const TensorView& out, const TensorView& lse_out, regard::Stream stream) {
  const bool packed = o_a.rank == 3;
  const int index = o_a.device.index;
  const DeviceCaps& caps = DeviceCaps::Gpu(index);
  if (!caps.gpu->missing.empty()) throw Error("device", caps.name + ": " + caps.gpu->missing, caps.gpu->remedy);
  const LsePlace a = PlaceOf("lse_a", lse_a, packed), b = PlaceOf("lse_b", lse_b, packed);
  const LsePlace to = PlaceOf("lse_out", lse_out, packed);
  MergeParams m;
  m.a = RowsOf(o_a, packed);
  m.b = RowsOf(o_b, packed);
  m.out = RowsOf(out, packed);
  m.lse_a = a.data;
  m.lse_a_batch = a.batch;
  m.lse_a_head = a.head;
  m.lse_b = b.data;
  m.lse_b_batch = b.batch;
  m.lse_b_head = b.head;
  m.lse_out = to.data;
  m.lse_out_batch = to.batch;
  m.lse_out_head = to.head;
  m.a_type = ElementOf(o_a.dtype);
  m.b_type = ElementOf(o_b.dtype);
  m.out_type = ElementOf(out.dtype);
  m.batch = packed ? 1 : Small("batch entries", o_a.shape[0]);
  m.rows = Small("rows", o_a.shape[packed ? 0 : 1]);
  m.heads = Small("heads", o_a.shape[packed ? 1 : 2]);
  m.head_dim_v = Small("columns", o_a.shape[packed ? 2 : 3]);
  const CudaFunction function = GetFunction(index, MergeInstance());
  LaunchKernel(function, RowGrid(i64{m.batch} * m.rows * m.heads), {static_cast<unsigned>(function.threads), 1, 1},
               function.shared_bytes, static_cast<abi::CUstream>(stream.handle), &m, sizeof m);
}

}  // namespace regard::cuda
