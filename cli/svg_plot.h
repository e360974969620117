// Line and point plots as inline SVG. Colours come from the page's CSS classes (report.cc), so that dark pages work.
#pragma once

#include <string>
#include <vector>

namespace regard::cli {

struct PlotPoint {
  double x = 0, y = 0;
  std::string hint;  // shown under the pointer
};

struct PlotSeries {
  enum class Style { kLine, kDots, kRoof };  // roof: a dashed grey line, named at its end
  std::string name;
  Style style = Style::kLine;
  std::vector<PlotPoint> points;
};

struct Plot {
  std::string title, x_label, y_label;
  bool log_x = false, log_y = false;  // base 2 on x, base 10 on y
  bool whole_x = false;               // no ticks between whole numbers
  std::vector<PlotSeries> series;
};

// "" for a plot without points.
std::string SvgOf(const Plot& plot);

// & < > " as entities.
std::string HtmlEscape(const std::string& text);

}  // namespace regard::cli
