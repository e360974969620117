// Causal attention with grouped heads: 32 query heads read 8 key/value heads, 128 tokens, head dim 64.
#include <cstdio>
#include <vector>

#include <regard/regard.h>

int main() {
  using namespace regard;
  std::vector<float> q(128 * 32 * 64, 0.5f), k(128 * 8 * 64, 0.25f), v(128 * 8 * 64, 2.0f), out(q.size());

  AttentionArgs args;  // views of your memory: (batch, tokens, heads, head dim), any strides
  args.q = TensorView::Contiguous(q.data(), DType::kF32, {1, 128, 32, 64});
  args.k = TensorView::Contiguous(k.data(), DType::kF32, {1, 128, 8, 64});
  args.v = TensorView::Contiguous(v.data(), DType::kF32, {1, 128, 8, 64});
  args.out = TensorView::Contiguous(out.data(), DType::kF32, {1, 128, 32, 64});

  AttentionOptions options;
  options.causal = true;
  const AttentionResult result = Attention(args, options);
  std::printf("kernel %s\n", result.selection.kernel.c_str());
  for (const Rejection& r : result.selection.rejected) std::printf("not %s: %s\n", r.kernel.c_str(), r.reason.c_str());
  std::printf("out[0] = %g\n", out[0]);
}
