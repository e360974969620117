#include "cli/prepared_case.h"

#include <algorithm>
#include <utility>

#include "cli/kv_chunks.h"
#include "regard/status.h"
#include "src/problem/extent.h"
#include "src/problem/sequence.h"

namespace regard::cli {
namespace {

std::vector<Sequence> SequencesOf(const Problem& p, const AttentionArgs& args) {
  std::vector<Sequence> sequences(static_cast<std::size_t>(BatchOf(args)));
  std::vector<std::byte> scratch(ResolveScratchBytes(p));
  ResolveArgs(p, args, true, sequences, scratch);
  return sequences;
}

Work WorkOf(const Problem& p, const AttentionArgs& args, std::int64_t block_tokens) {
  const std::vector<Sequence> sequences = SequencesOf(p, args);
  Work work;
  for (const Sequence& s : sequences) {
    work.pairs += VisiblePairs(p.options, s) * static_cast<double>(p.heads_q);
    work.query_rows += static_cast<double>(s.seq_q * p.heads_q);
    work.keys_per_row = std::max(work.keys_per_row, static_cast<double>(s.seq_kv));
  }
  const std::int64_t width = p.phase == Phase::kBackward ? 3 * p.head_dim + 2 * p.head_dim_v
                                                         : p.head_dim + p.head_dim_v * (p.qv ? 2 : 1);
  work.flops = work.pairs * 2.0 * static_cast<double>(width);
  work.chunks = ChunksInOrder(p, args, sequences, std::max<std::int64_t>(block_tokens, 1));
  work.bytes = TotalBytes(work.chunks);
  return work;
}

// Rows [first, first + rows) of entry b of q or out, as a batch of one: dense (1, rows, heads, dim).
TensorView RowsOf(const TensorView& view, bool packed, std::int64_t b, std::int64_t first, std::int64_t rows) {
  TensorView part = view;
  const std::int64_t offset = packed ? first * view.stride[0] : b * view.stride[0];
  part.data = static_cast<std::byte*>(view.data) + offset * static_cast<std::int64_t>(SizeOf(view.dtype));
  part.rank = 4;
  part.shape = {1, rows, view.shape[packed ? 1 : 2], view.shape[packed ? 2 : 3]};
  const std::int64_t row_stride = view.stride[packed ? 0 : 1];
  part.stride = {rows * row_stride, row_stride, view.stride[packed ? 1 : 2], 1};
  return part;
}

// Entry b of an index tensor (B, ...), as a batch of one.
TensorView EntryOf(TensorView view, std::int64_t b) {
  view.data = static_cast<std::byte*>(view.data) + b * view.stride[0] * static_cast<std::int64_t>(SizeOf(view.dtype));
  view.shape[0] = 1;
  return view;
}

void RequireParts(const Problem& p) {
  const bool plain = p.page_size && p.table == TableKind::kBlock && !p.append && !p.alibi && !p.bias && !p.mask &&
                     !p.leftpad && !p.qv && !p.q_offset && !p.lse && !IsFp8(p.kv_dtype) && p.seed % 2 == 1;
  if (!plain) {
    throw Error("case", Print(p), "pages by a block table, an odd seed and no tensors but q, k and v, to have parts");
  }
}

}  // namespace

PreparedCase::PreparedCase(const std::string& text, const std::string& kernel, Executor& executor)
    : text_(text), kernel_(kernel) {
  const Problem parsed = ParseProblem(text);
  Validate(parsed);
  memory_ = std::make_shared<const cases::Case>(cases::MakeCase(parsed));
  problem_ = memory_->problem();
  call_ = memory_->call();
  MakePlan(kernel, executor);
}

PreparedCase::PreparedCase(const PreparedCase& whole, std::int64_t b)
    : memory_(whole.memory_), kernel_(whole.kernel_), problem_(whole.problem_) {
  RequireParts(problem_);
  const Sequence s = SequencesOf(whole.problem_, whole.args())[static_cast<std::size_t>(b)];
  const AttentionArgs& from = whole.args();
  AttentionArgs& part = call_.forward;
  const bool packed = problem_.varlen;
  part.q = RowsOf(from.q, packed, b, s.q_row, s.seq_q);
  part.out = RowsOf(from.out, packed, b, s.q_row, s.seq_q);
  part.k = from.k;
  part.v = from.v;
  part.kv_layout = from.kv_layout;
  part.block_table = EntryOf(*from.block_table, b);
  part.seqlens_kv = EntryOf(*from.seqlens_kv, b);
  constexpr std::int64_t kLongestDecode = 15;
  problem_.phase = s.seq_q <= kLongestDecode ? Phase::kDecode : Phase::kPrefill;
  problem_.batch = 1;
  problem_.seq_q = s.seq_q;
  problem_.seq_kv = s.seq_kv;
  problem_.varlen = false;
  problem_.lens = problem_.qlens = {};
  text_ = Print(problem_);
  MakePlan(kernel_, whole.plan().executor());
}

void PreparedCase::MakePlan(const std::string& kernel, Executor& executor) {
  const DeviceCaps& caps = cases::DeviceOfKernels(kernel);
  const Selection selection =
      kernel.empty() ? Select(problem_, caps) : Select(problem_, caps, KernelChoice{{kernel}, {}});
  plan_ = std::make_unique<Plan>(problem_, selection, &executor);
  launched_ = std::make_unique<BackwardArgs>(call_);
  run_ = std::make_unique<cases::CaseOnDevice>(*plan_, *launched_);
  work_ = WorkOf(problem_, args(), plan_->shape().kv_block_tokens);
}

void PreparedCase::PoisonOutput() {
  cases::PoisonOutputs(problem_, call_);
  run_->CopyIn();
}

std::int64_t PreparedCase::sequences() const {
  return BatchOf(args());
}

// Rows to check of a big case: as many as the fp64 reference does in a fraction of a second.
cases::Accuracy PreparedCase::Check() const {
  constexpr double kMultiplications = 4e7;
  constexpr std::int64_t kMost = 64, kLeast = 4;
  const std::int64_t width = problem_.phase == Phase::kBackward ? 4 * problem_.head_dim + 3 * problem_.head_dim_v
                                                                : problem_.head_dim + problem_.head_dim_v;
  const double per_row = work_.keys_per_row * static_cast<double>(width);
  std::int64_t rows = 0;
  if (per_row * work_.query_rows > kMultiplications) {
    rows = std::clamp(static_cast<std::int64_t>(kMultiplications / per_row), kLeast, kMost);
  }
  run_->Finish();
  return cases::CheckAccuracy(problem_, call_, rows, problem_.seed);
}

}  // namespace regard::cli
