// A stranger's program: one query against two keys whose scores are 0 and ln 3, so the weights are 1/4 and 3/4,
// out = 3/4 * 4 = 3 and lse = ln 4. Exit 0 if regard agrees, and if a refused call throws regard::Error.
#include <cmath>
#include <cstdio>
#include <string>

#include <regard/regard.h>

int main(int argc, char** argv) {
  float q[] = {1}, k[] = {0, std::log(3.0f)}, v[] = {0, 4}, out[] = {0}, lse[] = {0};
  regard::AttentionArgs args;
  args.q = regard::TensorView::Contiguous(q, regard::DType::kF32, {1, 1, 1, 1});
  args.k = regard::TensorView::Contiguous(k, regard::DType::kF32, {1, 2, 1, 1});
  args.v = regard::TensorView::Contiguous(v, regard::DType::kF32, {1, 2, 1, 1});
  args.out = regard::TensorView::Contiguous(out, regard::DType::kF32, {1, 1, 1, 1});
  args.lse = regard::TensorView::Contiguous(lse, regard::DType::kF32, {1, 1, 1});
  const regard::AttentionResult result = regard::Attention(args);
  std::printf("kernel %s: out %.6f, lse %.6f\n", result.selection.kernel.c_str(), out[0], lse[0]);
  if (std::abs(out[0] - 3.0f) > 1e-5f || std::abs(lse[0] - std::log(4.0f)) > 1e-5f) return 1;

  args.v = regard::TensorView::Contiguous(v, regard::DType::kF32, {1, 1, 1, 1});
  try {
    regard::Attention(args);
    return 2;
  } catch (const regard::Error& error) {
    std::printf("refused: %s\n", error.what());
  }
  return argc > 1 && std::string(argv[1]) != regard_version() ? 3 : 0;
}
