#include "cli/svg_plot.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace regard::cli {
namespace {

constexpr double kWidth = 640, kHeight = 360, kLeft = 66, kRight = 18, kTop = 16, kBottom = 52;
constexpr int kColours = 6;  // classes c0 .. c5

// "512", "2k", "1M": lengths are powers of two.
std::string LengthText(double x) {
  for (const auto& [unit, name] : {std::pair{1048576.0, "M"}, std::pair{1024.0, "k"}}) {
    if (x >= unit && std::fmod(x, unit) == 0) return fmt::format("{:g}{}", x / unit, name);
  }
  return fmt::format("{:g}", x);
}

// One axis: data range, ticks, and the way onto [from, to] in pixels.
class Axis {
 public:
  Axis(double low, double high, bool log, double base, bool whole, double from, double to)
      : log_(log), base_(base), from_(from), to_(to) {
    if (log) {
      low_ = std::floor(std::log(low) / std::log(base) + 1e-9);
      high_ = std::max(std::ceil(std::log(high) / std::log(base) - 1e-9), low_ + 1);
    } else {
      step_ = std::max(NiceStep(high), whole ? 1.0 : 0.0);
      high_ = std::ceil(high / step_ - 1e-9) * step_;
    }
  }
  double At(double value) const {
    const double v = log_ ? std::log(value) / std::log(base_) : value;
    return from_ + (v - low_) / (high_ - low_) * (to_ - from_);
  }
  std::vector<double> Ticks() const {
    std::vector<double> ticks;
    if (log_) {
      const double stride = std::max(1.0, std::ceil((high_ - low_) / 10));
      for (double e = low_; e <= high_ + 1e-9; e += stride) ticks.push_back(std::pow(base_, e));
    } else {
      for (double v = 0; v <= high_ + step_ * 1e-6; v += step_) ticks.push_back(v);
    }
    return ticks;
  }

 private:
  // 1, 2 or 5 times a power of ten that cuts [0, high] into four to ten parts.
  static double NiceStep(double high) {
    const double rough = high / 5, power = std::pow(10, std::floor(std::log10(rough)));
    for (const double m : {1.0, 2.0, 5.0}) {
      if (rough <= m * power) return m * power;
    }
    return 10 * power;
  }

  bool log_;
  double base_, from_, to_, low_ = 0, high_ = 1, step_ = 1;
};

void AppendSeries(const PlotSeries& series, const Axis& x, const Axis& y, const std::string& colour, std::string* svg) {
  std::string path;
  for (const PlotPoint& p : series.points) {
    path += fmt::format("{}{:.1f},{:.1f}", path.empty() ? "M" : " L", x.At(p.x), y.At(p.y));
  }
  if (series.style != PlotSeries::Style::kDots)
    *svg += fmt::format("<path class=\"line {}\" d=\"{}\"/>\n", colour, path);
  if (series.style == PlotSeries::Style::kRoof) {
    const PlotPoint& end = series.points.back();
    *svg += fmt::format("<text class=\"tick\" text-anchor=\"end\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
                        x.At(end.x) - 4, y.At(end.y) - 6, HtmlEscape(series.name));
    return;
  }
  for (const PlotPoint& p : series.points) {
    *svg += fmt::format("<circle class=\"dot {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.5\"><title>{}</title></circle>\n",
                        colour, x.At(p.x), y.At(p.y), HtmlEscape(p.hint));
  }
}

}  // namespace

std::string HtmlEscape(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string SvgOf(const Plot& plot) {
  double x_low = std::numeric_limits<double>::infinity(), x_high = 0, y_low = x_low, y_high = 0;
  for (const PlotSeries& series : plot.series) {
    for (const PlotPoint& p : series.points) {
      x_low = std::min(x_low, p.x);
      x_high = std::max(x_high, p.x);
      y_low = std::min(y_low, p.y);
      y_high = std::max(y_high, p.y);
    }
  }
  if (!(x_high > 0 && y_high > 0)) return "";
  const Axis x(x_low, x_high, plot.log_x, 2, plot.whole_x, kLeft, kWidth - kRight);
  const Axis y(y_low, y_high, plot.log_y, 10, false, kHeight - kBottom, kTop);

  std::string svg = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", kWidth, kHeight,
                                HtmlEscape(plot.title));
  for (const double tick : y.Ticks()) {
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
        "<text class=\"tick\" text-anchor=\"end\" x=\"{3}\" y=\"{4:.1f}\">{5:g}</text>\n",
        kLeft, kWidth - kRight, y.At(tick), kLeft - 8, y.At(tick) + 4, tick);
  }
  for (const double tick : x.Ticks()) {
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>"
        "<text class=\"tick\" text-anchor=\"middle\" x=\"{0:.1f}\" y=\"{3}\">{4}</text>\n",
        x.At(tick), kTop, kHeight - kBottom, kHeight - kBottom + 18, LengthText(tick));
  }
  svg += fmt::format("<text class=\"label\" text-anchor=\"middle\" x=\"{:.0f}\" y=\"{:.0f}\">{}</text>\n",
                     (kLeft + kWidth - kRight) / 2, kHeight - 8, HtmlEscape(plot.x_label));
  svg += fmt::format(
      "<text class=\"label\" text-anchor=\"middle\" transform=\"translate(16,{:.0f}) rotate(-90)\">{}</text>\n",
      (kTop + kHeight - kBottom) / 2, HtmlEscape(plot.y_label));

  std::string legend;
  int next = 0;
  for (const PlotSeries& series : plot.series) {
    if (series.points.empty()) continue;
    const bool roof = series.style == PlotSeries::Style::kRoof;
    const std::string colour = roof ? "roof" : "c" + std::to_string(next++ % kColours);
    AppendSeries(series, x, y, colour, &svg);
    if (roof) continue;
    legend +=
        fmt::format("<span class=\"key\"><i class=\"swatch {}\"></i>{}</span>\n", colour, HtmlEscape(series.name));
  }
  return svg + "</svg>\n<p class=\"legend\">" + legend + "</p>\n";
}

}  // namespace regard::cli
