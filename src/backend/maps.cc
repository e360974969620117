// AttentionProbabilities and DropoutMask: the call is checked as any other, the reference fills a tensor of bounded
// size.
#include <cstdio>
#include <string>
#include <vector>

#include "regard/attention.h"
#include "src/problem/sequence.h"
#include "src/reference/reference.h"

namespace regard {
namespace {

// A checked call and the map that it gets.
struct Map {
  Problem p;
  AttentionArgs args;
  std::vector<Sequence> sequences;
  OwnedTensor out;  // where the caller gave none: a call has one
  OwnedTensor map;

  // `name` is what errors call the map.
  Map(const char* name, DType dtype, const AttentionArgs& given, const AttentionOptions& options) : args(given) {
    if (args.k_new) throw Error("k_new", "given", "nothing to append: append it by an attention call first");
    args.lse.reset();
    p = ProblemOf(args, options);
    Validate(p);
    const double bytes = static_cast<double>(p.batch) * static_cast<double>(p.heads_q) * static_cast<double>(p.seq_q) *
                         static_cast<double>(p.seq_kv) * static_cast<double>(SizeOf(dtype));
    if (bytes > static_cast<double>(kMostMapBytes)) {
      char mib[32];
      std::snprintf(mib, sizeof mib, "%.0f", bytes / (1 << 20));
      throw Error(name,
                  "(" + std::to_string(p.batch) + ", " + std::to_string(p.heads_q) + ", " + std::to_string(p.seq_q) +
                      ", " + std::to_string(p.seq_kv) + ") of " + std::string(Name(dtype)) + ", " + mib + " MiB",
                  "at most " + std::to_string(kMostMapBytes >> 20) + " MiB: fewer sequences, heads, queries or keys");
    }
    if (args.out.data == nullptr) {
      out = args.q.rank == 3
                ? OwnedTensor(p.OutType(), {args.q.shape[0], p.heads_q, p.head_dim_v})
                : OwnedTensor(p.OutType(), {args.q.shape[0], args.q.shape[1], p.heads_q, p.head_dim_v});
      args.out = out.view();
    }
    sequences.resize(static_cast<std::size_t>(p.batch));
    ResolveArgs(p, args, true, sequences, {});
    map = OwnedTensor(dtype, {p.batch, p.heads_q, p.seq_q, p.seq_kv});
  }
};

}  // namespace

OwnedTensor AttentionProbabilities(const AttentionArgs& args, const AttentionOptions& options) {
  const Map m("probabilities", DType::kF32, args, options);
  reference::Probabilities(m.p, m.args, m.sequences, static_cast<float*>(m.map.view().data));
  return m.map;
}

OwnedTensor DropoutMask(const AttentionArgs& args, const AttentionOptions& options) {
  const Map m("dropout mask", DType::kBool, args, options);
  reference::KeepMask(m.p, m.args, m.sequences, static_cast<std::uint8_t*>(m.map.view().data));
  return m.map;
}

}  // namespace regard
