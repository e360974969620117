#include "cli/report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "regard/version.h"

namespace regard::cli {
namespace {

constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --paper: #fbfbfa; --card: #ffffff; --rule: #e3e6ea;
  --c0: #2563c9; --c1: #d3602a; --c2: #23876a; --c3: #8347c4; --c4: #b3861a; --c5: #b8336f; --roof: #8a94a3;
  --good: #1d7a4c; --bad: #c0322b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b4; --paper: #14181e; --card: #1b2129;
  --rule: #2c343f; --c0: #6ea3ff; --c1: #ff9a66; --c2: #55c9a3; --c3: #c196ff; --c4: #e5bd5a; --c5: #ff85b5;
  --roof: #7d8896; --good: #58c98c; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1180px; margin: 0 auto; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 1rem 1.1rem; }
.card h3 { font-size: 1rem; margin: 0 0 .5rem; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { padding: .42rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
tr:last-child td { border-bottom: 0; } th { color: var(--soft); font-weight: 600; }
th.left, td.left { text-align: left; }
td.case { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .8rem; }
.meter { display: inline-block; width: 84px; height: 8px; margin-right: .5rem; border-radius: 4px;
  background: var(--rule); overflow: hidden; vertical-align: middle; } .meter i { display: block; height: 100%; background: var(--c0); }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
svg { width: 100%; height: auto; display: block; } .grid { stroke: var(--rule); stroke-width: 1; }
.tick { fill: var(--soft); font-size: 11.5px; } .label { fill: var(--soft); font-size: 12.5px; }
.line { fill: none; stroke: currentColor; stroke-width: 2.2; stroke-linejoin: round; }
.dot { fill: currentColor; stroke: var(--card); stroke-width: 1.5; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); }
.roof { color: var(--roof); } .line.roof { stroke-dasharray: 6 5; stroke-width: 1.8; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin-top: .5rem; font-size: .84rem; color: var(--soft); }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: .4rem;
  background: currentColor; vertical-align: -1px; }
)css";

std::string Hint(const BenchResult& r) {
  return fmt::format("{}\n{:.3f} ms, {:.1f} GFLOP/s, {:.1f} GB/s, {:.1f} % of {}", r.text, r.median_ms, r.gflops,
                     r.gbps, r.roof_percent, r.roof);
}

std::string ResultTable(const std::vector<BenchResult>& results) {
  std::string rows;
  for (const BenchResult& r : results) {
    const std::string verdict = !r.checked ? "not checked"
                                : r.ok()   ? "<span class=\"good\">good</span>"
                                           : "<span class=\"bad\">miss</span>";
    rows += fmt::format(
        "<tr><td class=\"left case\">{}</td><td class=\"left\">{}</td><td>{}</td><td>{:.3f}</td><td>{:.3f} - "
        "{:.3f}</td>"
        "<td>{:.1f}</td><td>{:.1f}</td><td class=\"left\" title=\"{}\">{} {:.1f} {}</td>"
        "<td class=\"left\"><span class=\"meter\"><i style=\"width:{:.0f}%\"></i></span>{:.1f} %</td>"
        "<td>{:.2e}</td><td class=\"left\">{}</td><td class=\"left\">{}</td></tr>\n",
        HtmlEscape(r.text), HtmlEscape(r.kernel), r.threads, r.median_ms, r.p10_ms, r.p90_ms, r.gflops, r.gbps,
        HtmlEscape(r.roof_how), r.roof, r.roof_value, r.reads() ? "GB/s" : "GFLOP/s", std::min(r.roof_percent, 100.0),
        r.roof_percent, r.accuracy.out_error, verdict, HtmlEscape(r.pages));
  }
  return "<div class=\"scroll\"><table><thead><tr><th class=\"left\">case</th><th "
         "class=\"left\">kernel</th><th>threads</th>"
         "<th>median ms</th><th>p10 - p90 ms</th><th>GFLOP/s</th><th>GB/s</th><th class=\"left\">roof</th>"
         "<th class=\"left\">of the roof</th><th>max error</th><th class=\"left\">check</th>"
         "<th class=\"left\">memory</th></tr></thead><tbody>\n" +
         rows + "</tbody></table></div>\n";
}

std::string Card(const Plot& plot, const std::string& note) {
  const std::string svg = SvgOf(plot);
  if (svg.empty()) return "";
  return fmt::format("<div class=\"card\"><h3>{}</h3>{}<p class=\"soft\">{}</p></div>\n", HtmlEscape(plot.title), svg,
                     HtmlEscape(note));
}

// Each sweep as a line, each of its roofs (by name) as a dashed line of what was measured beside it.
Plot LengthPlot(const std::string& title, const std::string& y_label, const std::vector<Sweep>& sweeps, bool reading) {
  Plot plot{title, "tokens", y_label, true, false, false, {}};
  std::map<std::string, std::map<double, double>> roofs;
  for (const Sweep& sweep : sweeps) {
    PlotSeries series{sweep.name, PlotSeries::Style::kLine, {}};
    for (std::size_t i = 0; i < sweep.results.size(); ++i) {
      const BenchResult& r = sweep.results[i];
      series.points.push_back({sweep.xs[i], reading ? r.gbps : r.gflops, Hint(r)});
      double& roof = roofs[r.roof][sweep.xs[i]];
      roof = std::max(roof, r.roof_value);
    }
    plot.series.push_back(std::move(series));
  }
  for (const auto& [name, values] : roofs) {
    PlotSeries series{name + " roof", PlotSeries::Style::kRoof, {}};
    for (const auto& [x, y] : values) series.points.push_back({x, y, ""});
    plot.series.push_back(std::move(series));
  }
  return plot;
}

Plot RooflinePlot(const ReportData& data) {
  Plot plot{"Roofline", "arithmetic intensity: flops for each K and V byte", "GFLOP/s", true, true, false, {}};
  std::map<std::string, PlotSeries> by_kernel;
  double low = 1, high = 1024;
  for (const BenchResult& r : data.results) {
    if (r.gflops <= 0 || r.intensity <= 0) continue;
    low = std::min(low, r.intensity);
    high = std::max(high, r.intensity);
    PlotSeries& series = by_kernel[r.kernel];
    series.name = r.kernel;
    series.style = PlotSeries::Style::kDots;
    series.points.push_back({r.intensity, r.gflops, Hint(r)});
  }
  for (auto& [name, series] : by_kernel) plot.series.push_back(std::move(series));
  auto roof = [&](const std::string& name, double gflops) {
    if (gflops <= 0 || data.read_gbps <= 0) return;
    const double ridge = gflops / data.read_gbps;
    plot.series.push_back(
        {name,
         PlotSeries::Style::kRoof,
         {{low, data.read_gbps * low, ""}, {ridge, gflops, ""}, {std::max(high, ridge), gflops, ""}}});
  };
  if (plot.series.empty()) return plot;
  roof(fmt::format("fma_f32 {:.0f} GFLOP/s", data.fma_gflops), data.fma_gflops);
  roof(fmt::format("dot_bf16 {:.0f} GFLOP/s", data.dot_gflops), data.dot_gflops);
  return plot;
}

Plot ScalingPlot(const std::vector<Sweep>& sweeps) {
  Plot plot{"Scaling with threads", "threads", "times as fast as one thread", false, false, true, {}};
  double most = 1;
  for (const Sweep& sweep : sweeps) {
    PlotSeries series{sweep.name, PlotSeries::Style::kLine, {}};
    for (std::size_t i = 0; i < sweep.results.size(); ++i) {
      if (sweep.results[i].median_ms <= 0) continue;
      series.points.push_back(
          {sweep.xs[i], sweep.results.front().median_ms / sweep.results[i].median_ms, Hint(sweep.results[i])});
      most = std::max(most, sweep.xs[i]);
    }
    plot.series.push_back(std::move(series));
  }
  if (!sweeps.empty()) plot.series.push_back({"ideal", PlotSeries::Style::kRoof, {{1, 1, ""}, {most, most, ""}}});
  return plot;
}

}  // namespace

std::string ReportHtml(const ReportData& data) {
  std::string html =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>regard bench</title>\n<style>";
  html += kStyle;
  html += "</style></head><body><main>\n<h1>regard bench</h1>\n";
  html +=
      fmt::format("<p class=\"soft\">{} &middot; {} &middot; regard {}{}</p>\n", HtmlEscape(data.cpu),
                  HtmlEscape(data.best_isa), regard_version(), data.complete ? "" : " &middot; interrupted, partial");
  html +=
      "<p>Roofs and cases were measured turn about in one run, on the same threads and the same memory. GFLOP/s counts "
      "visible pairs only; GB/s counts each visible K and V byte once. Point at a mark for its case.</p>\n";
  html += "<h2>Cases</h2>\n" + ResultTable(data.results);
  html += "<h2>Plots</h2>\n<div class=\"cards\">\n";
  html += Card(LengthPlot("Prefill throughput by length", "GFLOP/s", data.prefill_lengths, false),
               "Queries attend to as many keys, causal, 32 query heads over 8 kv heads of 128.");
  html +=
      Card(LengthPlot("Decode throughput by length", "GB/s", data.decode_lengths, true),
           "One query over this many keys, 32 query heads over 8 kv heads of 128. Short caches stay in the CPU's own.");
  html +=
      Card(RooflinePlot(data), fmt::format("Every case of the table, under what the machine can do at its arithmetic "
                                           "intensity: reading at {:.1f} GB/s, then arithmetic.",
                                           data.read_gbps));
  html += Card(ScalingPlot(data.threads), "The same case on more threads.");
  return html + "</div>\n</main></body></html>\n";
}

}  // namespace regard::cli
