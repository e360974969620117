// What `regard explain` prints: problem, device, the chosen kernel and its cost, the plan, and every rejected kernel with
// its reason and remedy. Rejections with one reason and one remedy share a line.
#include <algorithm>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <string>
#include <vector>

#include "regard/plan.h"
#include "src/backend/json.h"
#include "src/backend/select.h"
#include "src/cuda/floor.h"

namespace regard {
namespace {

[[gnu::format(printf, 1, 2)]] std::string Format(const char* format, ...) {
  va_list args;
  va_start(args, format);
  char text[512];
  const int n = std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return std::string(text, static_cast<std::size_t>(std::clamp(n, 0, static_cast<int>(sizeof text) - 1)));
}

std::string Bytes(double n) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int u = 0;
  for (; n >= 1024 && u < 4; ++u) n /= 1024;
  return Format(n < 10 && u > 0 ? "%.1f %s" : "%.0f %s", n, units[u]);
}
std::string Seconds(double s) {
  if (s < 1e-3) return Format("%.3g us", s * 1e6);
  return s < 1 ? Format("%.3g ms", s * 1e3) : Format("%.3g s", s);
}
std::string Count(double n) {
  const char* units[] = {"", " k", " M", " G", " T"};
  int u = 0;
  for (; n >= 1e4 && u < 4; ++u) n /= 1e3;
  return Format("%.3g%s", n, units[u]);
}

const char* NameOf(Phase p) {
  switch (p) {
    case Phase::kPrefill: return "prefill";
    case Phase::kDecode: return "decode";
    case Phase::kMixed: return "mixed";
    case Phase::kBackward: return "backward";
  }
  return "?";
}
const char* NameOf(Invariance i) {
  return i == Invariance::kFull ? "full" : i == Invariance::kBatch ? "batch" : "none";
}

std::string ProblemLine(const Problem& p) {
  const AttentionOptions& o = p.options;
  std::string s = Format("%s  %" PRId64 " x (%" PRId64 " quer%s over %" PRId64 " keys)  heads %" PRId64 "/%" PRId64, NameOf(p.phase),
                         p.batch, p.seq_q, p.seq_q == 1 ? "y" : "ies", p.seq_kv, p.heads_q, p.heads_kv);
  s += Format("  d %" PRId64, p.head_dim);
  if (p.head_dim_v != p.head_dim) s += Format(" dv %" PRId64, p.head_dim_v);
  s += "  " + std::string(Name(p.dtype));
  if (p.kv_dtype != p.dtype) s += " over " + std::string(Name(p.kv_dtype)) + " keys";
  if (p.varlen) s += "  packed";
  if (p.page_size) {
    s += Format("  page %" PRId64 " %s%s", *p.page_size, p.layout == KvLayout::kNHD ? "NHD" : "HND",
                p.table == TableKind::kCsr ? " csr" : "");
  }
  if (o.causal) s += "  causal";
  const auto side = [](const std::optional<std::int64_t>& x) { return x ? std::to_string(*x) : std::string("open"); };
  if (o.window_left || o.window_right) s += "  window " + side(o.window_left) + "," + side(o.window_right);
  if (o.chunk) s += Format("  chunk %" PRId64, *o.chunk);
  if (o.softcap > 0) s += Format("  softcap %g", o.softcap);
  if (o.scale) s += Format("  scale %g", *o.scale);
  if (o.dropout > 0) s += Format("  dropout %g", o.dropout);
  const std::pair<bool, const char*> flags[] = {{p.alibi, "alibi"},       {p.bias, "bias"},         {p.mask, "mask"},
                                                {p.sink, "sink"},         {p.leftpad, "leftpad"},   {p.qv, "qv"},
                                                {p.q_offset, "q_offset"}, {p.score_mod, "score_mod"}, {p.mask_mod, "mask_mod"},
                                                {p.lse, "lse"},           {p.dlse, "dlse"},         {p.dbias, "dbias"},
                                                {p.dsink, "dsink"}};
  for (const auto& [on, name] : flags) {
    if (on) s += std::string("  ") + name;
  }
  if (p.grad_dtype) s += "  gradients " + std::string(Name(*p.grad_dtype));
  if (p.append) s += Format("  append %" PRId64, *p.append);
  if (o.rotary != Rotary::kNone) s += o.rotary == Rotary::kHalf ? "  rotary half-split" : "  rotary interleaved";
  return s;
}

// What holds once a plan is made: REGARD_TUNE may have changed it.
const std::string& NumericsOf(const Plan* plan, const Selection& s) {
  return plan ? plan->selection().numerics : s.numerics;
}
Invariance InvarianceOf(const Plan* plan, const Problem& p) {
  return plan ? plan->problem().options.invariance : p.options.invariance;
}

// Every kernel of this release keeps full invariance, so that a weaker demand changes neither choice nor speed.
std::string InvarianceNote(const Problem& p, const Plan* plan, const Selection& s) {
  const std::string note = std::string("invariance ") + NameOf(InvarianceOf(plan, p));
  if (NumericsOf(plan, s) != s.numerics) return note + " (REGARD_TUNE changes the numerics)";
  if (p.options.invariance == Invariance::kFull) return note;
  return note + " (no kernel gains from it: full invariance holds all the same)";
}

// "task_rows 384, share 262144 (default); block 256 (REGARD_TUNE)"
std::string SettingsLine(const std::vector<PlanSetting>& settings) {
  std::string line;
  std::vector<std::string> sources;
  for (const PlanSetting& s : settings) {
    if (std::find(sources.begin(), sources.end(), s.source) == sources.end()) sources.push_back(s.source);
  }
  for (const std::string& source : sources) {
    std::string part;
    for (const PlanSetting& s : settings) {
      if (s.source == source) part += (part.empty() ? "" : ", ") + s.name + " " + std::to_string(s.value);
    }
    line += (line.empty() ? "" : "; ") + part + " (" + source + ")";
  }
  return line;
}

std::string GpuLine(const DeviceCaps& c) {
  const GpuCaps& g = *c.gpu;
  return c.name + Format(", sm_%d, %d multiprocessors, L2 ", g.sm, g.multiprocessors) + Bytes(static_cast<double>(g.l2_bytes)) +
         Format(", %.4g GB/s, f16 %.3g TFLOP/s, f32 %.3g TFLOP/s (%s)", g.memory_gbps, g.tensor_f16_tflops, g.f32_tflops,
                g.index ? "peaks" : "pretended: the vendor's peaks");
}

std::string DeviceLine(const DeviceCaps& c) {
  if (c.gpu) return GpuLine(c);
  return c.name + Format(", %d thread%s, %s", c.threads, c.threads == 1 ? "" : "s", Name(c.Best())) + ", L2 " +
         Bytes(static_cast<double>(c.l2_bytes)) +
         Format(", read %.3g GB/s, f32 %.3g GFLOP/s a thread (%s)", c.read_gbps, c.fma_gflops, c.measured ? "measured" : "a guess");
}

std::string CostLine(const Problem& p, const Cost& c) {
  const std::string work = p.phase == Phase::kDecode ? Bytes(c.bytes) + " to read" : Count(c.flops / 1e9) + " GFLOP";
  return work + ", about " + Seconds(c.seconds);
}

std::string GpuPlanLine(const Plan& plan) {
  const PlanShape& s = plan.shape();
  std::string kernels;
  for (const std::string& instance : s.instances) kernels += (kernels.empty() ? "" : ", then ") + instance;
  return Format("%" PRId64 " block%s of %d threads, tiles of %" PRId64 " rows, key blocks of %" PRId64 ", splits of %" PRId64 ", workspace ",
                s.max_tasks, s.max_tasks == 1 ? "" : "s", s.threads, s.rows_per_task, s.kv_block_tokens, s.kv_split_tokens) +
         Bytes(static_cast<double>(plan.workspace_bytes())) + "\ncompiled  " + kernels;
}

// "tensor cores 41 us, shared memory 52 us, ...: at least 52 us, by a model"; empty where the model has nothing to say.
std::string FloorLine(const std::vector<cuda::FloorTerm>& terms) {
  std::string line;
  double floor = 0;
  for (const cuda::FloorTerm& term : terms) {
    line += (line.empty() ? "" : ", ") + std::string(term.unit) + " " + Seconds(term.seconds);
    floor = std::max(floor, term.seconds);
  }
  return line.empty() ? line : line + ": at least " + Seconds(floor) + ", by a model";
}

std::string PlanLine(const Problem& p, const Plan& plan) {
  const PlanShape& s = plan.shape();
  if (!s.instances.empty()) return GpuPlanLine(plan);
  std::string line;
  const std::int64_t splits = s.kv_split_tokens > 0 ? (p.seq_kv + s.kv_split_tokens - 1) / s.kv_split_tokens : 0;
  if (p.phase == Phase::kDecode) {
    line = Format("%" PRId64 " split%s of %" PRId64 " keys a sequence, all %" PRId64 " kv heads in each", splits,
                  splits == 1 ? "" : "s", s.kv_split_tokens, p.heads_kv);
  } else {
    line = Format("tiles of %" PRId64 " rows, tasks of %" PRId64 " rows, key blocks of %" PRId64 ", splits of %" PRId64, s.rows_per_tile,
                  s.rows_per_task, s.kv_block_tokens, s.kv_split_tokens);
  }
  return line + Format(", up to %" PRId64 " tasks, %d thread%s, workspace ", s.max_tasks, s.threads, s.threads == 1 ? "" : "s") +
         Bytes(static_cast<double>(plan.workspace_bytes()));
}

void WriteDevice(JsonWriter& w, const DeviceCaps& caps) {
  w.Member("name", caps.name).Member("type", caps.gpu ? "cuda" : "cpu");
  if (!caps.gpu) {
    w.Member("isa", Name(caps.Best())).Member("threads", caps.threads);
    w.Member("l1_bytes", caps.l1_bytes).Member("l2_bytes", caps.l2_bytes).Member("l3_bytes", caps.l3_bytes);
    w.Member("read_gbps", caps.read_gbps).Member("fma_gflops", caps.fma_gflops).Member("measured", caps.measured);
    return;
  }
  const GpuCaps& g = *caps.gpu;
  w.Member("pretended", !g.index.has_value()).Member("sm", g.sm).Member("multiprocessors", g.multiprocessors);
  w.Member("shared_per_block_bytes", g.shared_per_block_bytes).Member("l2_bytes", g.l2_bytes);
  w.Member("memory_bytes", g.memory_bytes).Member("memory_gbps", g.memory_gbps);
  w.Member("tensor_f16_tflops", g.tensor_f16_tflops).Member("f32_tflops", g.f32_tflops);
}

}  // namespace

std::string ExplainText(const Problem& p, const DeviceCaps& caps, const Plan* plan, const Selection& s) {
  std::string t = "problem   " + ProblemLine(p) + "\ndevice    " + DeviceLine(caps) + "\nchosen    " + s.kernel + "   " +
                  CostLine(p, s.cost) + "\nnumerics  " + NumericsOf(plan, s) + ", " + InvarianceNote(p, plan, s) + "\n";
  if (plan) t += "plan      " + PlanLine(p, *plan) + "\n";
  if (const std::string floor = FloorLine(cuda::FloorOf(p, caps, s)); !floor.empty()) t += "floor     " + floor + "\n";
  if (plan && !plan->shape().settings.empty()) t += "settings  " + SettingsLine(plan->shape().settings) + "\n";
  const std::vector<RejectionGroup> groups = GroupRejections(s.rejected.list());
  std::size_t width = 0, reason_width = 0;  // of the columns
  for (const RejectionGroup& g : groups) {
    width = std::max(width, g.Title().size());
    if (!g.rejection->remedy.empty()) reason_width = std::max(reason_width, g.rejection->reason.size());
  }
  const auto padded = [](const std::string& word, std::size_t n) {
    return word + std::string(word.size() < n ? n - word.size() : 0, ' ');
  };
  bool first = true;
  for (const RejectionGroup& g : groups) {
    const Rejection& r = *g.rejection;
    t += (first ? "rejected  " : "          ") + padded(g.Title(), width) + "  ";
    t += r.remedy.empty() ? r.reason : padded(r.reason, reason_width) + "  -> " + r.remedy;
    t += "\n";
    first = false;
  }
  return t;
}

std::string ExplainJson(const Problem& p, const DeviceCaps& caps, const Plan* plan, const Selection& s) {
  JsonWriter w;
  w.Open('{');
  w.Member("problem", Print(p));
  w.Key("device").Open('{');
  WriteDevice(w, caps);
  w.Close('}');
  w.Key("chosen").Open('{');
  w.Member("kernel", s.kernel).Member("numerics", NumericsOf(plan, s));
  w.Member("invariance", NameOf(InvarianceOf(plan, p)));
  w.Member("flops", s.cost.flops).Member("bytes", s.cost.bytes).Member("seconds", s.cost.seconds);
  w.Close('}');
  if (const std::vector<cuda::FloorTerm> floor = cuda::FloorOf(p, caps, s); !floor.empty()) {
    w.Key("floor_seconds").Open('{');
    for (const cuda::FloorTerm& term : floor) w.Member(term.unit, term.seconds);
    w.Close('}');
  }
  if (plan) {
    const PlanShape& shape = plan->shape();
    w.Key("plan").Open('{');
    w.Member("rows_per_tile", shape.rows_per_tile).Member("rows_per_task", shape.rows_per_task);
    w.Member("kv_block_tokens", shape.kv_block_tokens).Member("kv_split_tokens", shape.kv_split_tokens);
    w.Member("max_tasks", shape.max_tasks).Member("threads", shape.threads);
    w.Member("workspace_bytes", static_cast<std::int64_t>(plan->workspace_bytes()));
    if (!shape.instances.empty()) {
      w.Key("instances").Open('[');
      for (const std::string& instance : shape.instances) w.Value(instance);
      w.Close(']');
    }
    w.Key("settings").Open('{');
    for (const PlanSetting& setting : shape.settings) {
      w.Key(setting.name).Open('{').Member("value", setting.value).Member("source", setting.source).Close('}');
    }
    w.Close('}');
    w.Close('}');
  }
  w.Key("rejected").Open('[');
  for (const Rejection& r : s.rejected) {
    w.Open('{');
    w.Member("kernel", r.kernel).Member("reason", r.reason).Member("remedy", r.remedy).Member("able", r.able);
    w.Close('}');
  }
  w.Close(']');
  w.Close('}');
  return w.Take() + "\n";
}

}  // namespace regard
