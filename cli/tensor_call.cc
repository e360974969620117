#include "cli/tensor_call.h"

#include <vector>

#include "regard/status.h"
#include "src/problem/sequence.h"

namespace regard::cli {
namespace {

const TensorView& Load(TensorCall& call, const char* field, const std::string& path) {
  call.files.push_back(ReadNpy(field, path));
  return call.files.back().view;
}

void LoadIfGiven(TensorCall& call, const char* field, const std::string& path, std::optional<TensorView>& slot) {
  if (!path.empty()) slot = Load(call, field, path);
}

// What the words say; only options may be among them, since the files give shapes, lengths and types.
Problem OptionWords(const std::string& words) {
  const Problem plain = ParseProblem("prefill");
  const Problem given = ParseProblem("prefill " + words);
  Problem options = plain;
  options.options = given.options;
  options.layout = given.layout;
  options.lse = given.lse;
  options.out_dtype = given.out_dtype;
  if (options != given) {
    throw Error("--options", words,
                "options only (causal window= chunk= softcap= scale= dropout= invariance= layout= out= lse); shapes, "
                "lengths and tensors come from the files");
  }
  return given;
}

TensorView NewTensor(cases::Buffer& memory, DType dtype, std::initializer_list<std::int64_t> shape) {
  TensorView view = TensorView::Contiguous(nullptr, dtype, shape);
  memory = cases::Buffer(static_cast<std::size_t>(view.Elements()) * SizeOf(dtype));
  view.data = memory.data();
  return view;
}

void CheckAll(const Problem& p, const AttentionArgs& args) {
  Validate(p);
  std::vector<Sequence> sequences(static_cast<std::size_t>(p.batch));
  std::vector<std::byte> scratch(ResolveScratchBytes(p));
  ResolveArgs(p, args, true, sequences, scratch);
}

}  // namespace

TensorCall LoadTensorCall(const TensorFiles& files, bool want_lse) {
  for (const auto& [field, path] : {std::pair{"--q", &files.q}, {"--k", &files.k}, {"--v", &files.v}}) {
    if (path->empty()) throw Error(field, "absent", "three files: --q, --k and --v go together");
  }
  const Problem words = OptionWords(files.options);
  TensorCall call;
  AttentionArgs& args = call.args;
  args.q = Load(call, "--q", files.q);
  args.k = Load(call, "--k", files.k);
  args.v = Load(call, "--v", files.v);
  args.kv_layout = words.layout;
  LoadIfGiven(call, "--cu-seqlens-q", files.cu_q, args.cu_seqlens_q);
  LoadIfGiven(call, "--cu-seqlens-kv", files.cu_kv, args.cu_seqlens_kv);
  LoadIfGiven(call, "--block-table", files.block_table, args.block_table);
  LoadIfGiven(call, "--bias", files.bias, args.bias);
  LoadIfGiven(call, "--mask", files.mask, args.mask);
  LoadIfGiven(call, "--sink", files.sink, args.sink);
  LoadIfGiven(call, "--alibi-slopes", files.alibi_slopes, args.alibi_slopes);
  LoadIfGiven(call, "--qlens", files.qlens, args.seqused_q);
  if (!files.lens.empty()) {
    const TensorView& lens = Load(call, "--lens", files.lens);
    (args.block_table ? args.seqlens_kv : args.seqused_kv) = lens;
    const bool dense = !args.block_table && args.q.rank == 4 && args.k.rank == 4;
    if (dense && !args.seqused_q && args.q.shape[1] == args.k.shape[1]) args.seqused_q = lens;
  }

  call.problem = ProblemOf(args, words.options);
  Problem& p = call.problem;
  if (args.q.dtype > DType::kBF16) throw Error("--q", args.q.Describe(), "f32, f16 or bf16");
  p.out_dtype = words.out_dtype;
  p.lse = want_lse || words.lse;
  if (args.q.rank == 3) {
    args.out = NewTensor(call.out_memory, p.OutType(), {args.q.shape[0], p.heads_q, p.head_dim_v});
    if (p.lse) args.lse = NewTensor(call.lse_memory, DType::kF32, {p.heads_q, args.q.shape[0]});
  } else {
    args.out = NewTensor(call.out_memory, p.OutType(), {args.q.shape[0], args.q.shape[1], p.heads_q, p.head_dim_v});
    if (p.lse) args.lse = NewTensor(call.lse_memory, DType::kF32, {args.q.shape[0], p.heads_q, args.q.shape[1]});
  }
  CheckAll(p, args);
  return call;
}

}  // namespace regard::cli
