// What the views of a backward call claim: those of the forward call, which are all read here, then the gradients that
// come in (dout, dlse) and go out (dq, dk, dv, dbias, dsink), each of the shape of what it is the gradient of.
#include <string>

#include "regard/status.h"
#include "src/problem/checks.h"
#include "src/problem/view_checks.h"

namespace regard::checks {
namespace {

// Rank and extents of `like`, whose own are checked; the last dim is contiguous.
void CheckLike(const char* name, const TensorView& v, const char* like_name, const TensorView& like) {
  bool same = v.rank == like.rank;
  for (int d = 0; d < v.rank && same; ++d) same = v.shape[d] == like.shape[d];
  if (!same) throw Error(Field(name, "shape"), v.Describe(), "the shape of " + std::string(like_name) + ", " + like.Describe());
  const int last = v.rank - 1;
  if (v.shape[last] > 1 && v.stride[last] != 1) {
    throw Error(At(Field(name, "stride").c_str(), last), Text(v.stride[last]), "1: the last dim is contiguous");
  }
}

void Refuse(const char* name, bool given, const char* instead) {
  if (given) throw Error(name, "given", "absent in a backward call; " + std::string(instead));
}

// What the rules on the problem cannot see, since it is about tensors only.
void CheckForwardOnly(const AttentionArgs& a) {
  Refuse("cache_seqlens", a.cache_seqlens.has_value(), "seqused_kv gives key lengths");
  Refuse("cache_batch_idx", a.cache_batch_idx.has_value(), "gather the rows of k and v first");
}

}  // namespace

void CheckBackwardViews(const Problem& p, const BackwardArgs& a, Device device) {
  const AttentionArgs& f = a.forward;
  CheckForwardOnly(f);
  CheckViews(p, f, device);
  for (const BackwardMember& m : BackwardMembers(a)) {
    if (m.view) CheckStorage(m.name, *m.view, f.q.device);
  }
  CheckPresence("dlse", a.dlse.has_value(), p.dlse, "dlse in the plan");
  CheckPresence("dbias", a.dbias.has_value(), p.dbias, "dbias in the plan");
  CheckPresence("dsink", a.dsink.has_value(), p.dsink, "dsink in the plan");

  CheckDType("dout", a.dout, {p.dtype, DType::kF32});
  CheckLike("dout", a.dout, "out", f.out);
  if (a.dlse) {
    CheckDType("dlse", *a.dlse, DType::kF32);
    CheckLike("dlse", *a.dlse, "lse", *f.lse);
  }
  CheckDType("dq", a.dq, p.GradType());
  CheckLike("dq", a.dq, "q", f.q);
  CheckDType("dk", a.dk, p.GradType());
  CheckLike("dk", a.dk, "k", f.k);
  CheckDType("dv", a.dv, p.GradType());
  CheckLike("dv", a.dv, "v", f.v);
  if (a.dbias) {
    CheckDType("dbias", *a.dbias, {f.bias->dtype, DType::kF32});
    CheckLike("dbias", *a.dbias, "bias", *f.bias);
  }
  if (a.dsink) {
    CheckDType("dsink", *a.dsink, DType::kF32);
    CheckLike("dsink", *a.dsink, "sink", *f.sink);
  }
  CheckBackwardOverlap(a);
}

}  // namespace regard::checks
