// Builder of one generated case: allocates poisoned tensors in the order that the call needs them, lets ResolveArgs check
// and resolve the call, and only then writes values into the slots that sequences own. Poison (NaN) stays everywhere else.
#pragma once

#include <initializer_list>
#include <vector>

#include "src/cases/buffer.h"
#include "src/cases/cases.h"
#include "src/cases/random.h"

namespace regard::cases {

struct Case::Impl {
  Problem problem;
  BackwardArgs call;            // only its forward call, unless the phase is backward
  std::vector<Buffer> buffers;  // the memory of every view in call
};

class Builder {
 public:
  Builder(const Problem& p, std::size_t max_bytes);
  Case Build() &&;

 private:
  // make_case.cc
  void SettleLengths();
  void MakeQueries();
  void MakeKeys();
  void MakeNewKeys();
  std::vector<Sequence> FillTokens();
  // make_pages.cc
  void MakePages();
  std::int64_t PoolPages(std::int64_t used) const;
  // make_options.cc
  void MakeOptions();
  void MakeRotary();
  TensorView MakeScoreTensor(DType dtype, Stream stream);

  // make_backward.cc
  void MakeGradients();
  void FillGradients(const std::vector<Sequence>& sequences);
  void RunForward(const std::vector<Sequence>& sequences);

  // A row-major tensor of its own, poisoned. Throws Error where the case would pass max_bytes.
  TensorView NewTensor(DType dtype, std::initializer_list<std::int64_t> shape);
  // (B, S, H, D) in the problem's memory order.
  TensorView NewDense(DType dtype, std::int64_t rows, std::int64_t tokens, std::int64_t heads, std::int64_t dim);
  TensorView NewInts(const std::vector<std::int64_t>& values);
  // Even seeds draw the rarer forms (cases.h).
  bool rare() const { return p_.seed % 2 == 0; }
  bool backward() const { return p_.phase == Phase::kBackward; }
  // Row of the cache or of the block table that belongs to sequence b.
  std::int64_t CacheRows() const { return UsesBatchIndex() ? p_.batch + 1 : p_.batch; }
  std::int64_t CacheRow(std::int64_t b) const { return UsesBatchIndex() ? p_.batch - b : b; }
  bool UsesBatchIndex() const;

  const Problem& p_;
  std::size_t max_bytes_;
  std::size_t bytes_ = 0;
  std::unique_ptr<Case::Impl> impl_;
  AttentionArgs& args_;
  // Of each sequence: queries, keys (appended and left padding included), appended keys, left padding.
  std::vector<std::int64_t> seq_q_, seq_kv_, append_, leftpad_;
};

}  // namespace regard::cases
