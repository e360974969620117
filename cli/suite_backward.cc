// The suite `backward`: per cent of the roof that gradients should reach, all five products counted on visible pairs. The
// goals are those of a machine with AVX-512 and BF16 dot products (Zen 4, Zen 5).
#include <fmt/format.h>

#include "cli/suites.h"

namespace regard::cli {

std::vector<Row> BackwardRows() {
  struct Shape {
    int tokens;
    const char *type, *mask;
    Goals goals;
  };
  const Shape shapes[] = {{2048, "f32", "full", {87, 84}},     {2048, "f32", "causal", {82, 80}},
                          {2048, "bf16", "full", {86, 84}},    {2048, "bf16", "causal", {78, 76}},
                          {512, "f32", "full", {86, {}}},      {512, "f32", "causal", {80, {}}},
                          {512, "bf16", "full", {84, {}}},     {512, "bf16", "causal", {77, {}}}};
  std::vector<Row> rows;
  for (const Shape& shape : shapes) {
    const bool causal = std::string(shape.mask) == "causal";
    rows.push_back({fmt::format("backward d=128 s={} {} {}", shape.tokens, shape.type, shape.mask), Figure::kRoof,
                    fmt::format("backward b=1 sq={0} skv={0} hq=32 hkv=8 d=128 dtype={1}{2}", shape.tokens, shape.type,
                                causal ? " causal" : ""),
                    "", shape.goals, ""});
  }
  return rows;
}

}  // namespace regard::cli
