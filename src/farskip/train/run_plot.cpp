#include "farskip/train/run_plot.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "farskip/base/error.h"

namespace farskip {
namespace {

// Told apart by most of those who do not see all colours (Okabe and Ito).
constexpr std::array<const char*, 7> colours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                "#e69f00", "#56b4e9", "#1f2430"};

// What runs along the picture, in units that keep its numbers short.
struct HorizontalAxis {
  RunPlot::Axis kind = RunPlot::Axis::steps;
  double end = 1;  // of all runs, in units
  double unit = 1;
  std::string label = "steps";

  template <typename Point>
  double of(const Point& point) const {
    return static_cast<double>(kind == RunPlot::Axis::steps ? point.step : point.tokens) / unit;
  }
};

HorizontalAxis axis_of(std::span<const PlottedRun> runs, RunPlot::Axis kind) {
  HorizontalAxis axis{.kind = kind};
  for (const PlottedRun& run : runs) {
    for (const auto& point : run.metrics.training) axis.end = std::max(axis.end, axis.of(point));
    for (const auto& point : run.metrics.validation) axis.end = std::max(axis.end, axis.of(point));
  }
  if (kind == RunPlot::Axis::steps) return axis;
  axis.unit = axis.end < 1e6 ? 1e3 : axis.end < 1e9 ? 1e6 : 1e9;
  axis.label = std::string(axis.end < 1e6   ? "thousand"
                           : axis.end < 1e9 ? "million"
                                            : "billion") +
               " tokens";
  axis.end /= axis.unit;
  return axis;
}

struct Curve {
  std::vector<double> x, y;
};

template <typename Points, typename Field>
Curve curve_of(const Points& points, const HorizontalAxis& axis, Field field) {
  Curve curve;
  for (const auto& point : points) {
    curve.x.push_back(axis.of(point));
    curve.y.push_back(point.*field);
  }
  return curve;
}

// Means over `width` values; what lies on one side only does not count, so that ends do not lag.
std::vector<double> smoothed(const std::vector<double>& values, int width) {
  const auto count = static_cast<int64_t>(values.size());
  std::vector<double> sums(1, 0);
  for (double value : values) sums.push_back(sums.back() + value);
  std::vector<double> means;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t reach = std::min({int64_t{width} / 2, i, count - 1 - i});
    means.push_back((sums[i + reach + 1] - sums[i - reach]) / static_cast<double>(2 * reach + 1));
  }
  return means;
}

std::string digits(double value) {
  std::array<char, 32> text;
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

// As gnuplot reads it whatever is in it: between single quotes only they have a meaning.
std::string quoted(const std::string& text) {
  std::string result = "'";
  for (char c : text) {
    if (c == '\'') result += c;
    result += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return result + "'";
}

class ScriptWriter {
 public:
  ScriptWriter(std::span<const PlottedRun> runs, const RunPlot& plot)
      : runs_(runs), plot_(plot), axis_(axis_of(runs, plot.axis)) {}

  std::string write() {
    add_settings();
    add_losses();
    add_throughput();
    script_ += "unset multiplot\n";
    return script_;
  }

 private:
  void add_settings() {
    const bool svg = plot_.format == RunPlot::Format::svg;
    script_ += svg ? "set terminal svg size 900,720 noenhanced font 'sans-serif,13' background "
                     "'#ffffff'\n"
                   : "set terminal pngcairo size 1350,1080 noenhanced font 'sans,18' background "
                     "'#ffffff'\n";
    script_ +=
        "set encoding utf8\n"
        "set border 3\n"
        "set tics nomirror\n"
        "set grid ytics linetype 1 linewidth 1 linecolor rgb '#dddddd'\n"
        "set key top right\n"
        "set lmargin 11\n"
        "set rmargin 3\n"
        "set format '%g'\n"
        "set xrange [0:" +
        digits(axis_.end) + "]\nset xlabel " + quoted(axis_.label) + "\n";
  }

  // The elements of a plot command, and what it reads.
  void add_curve(const Curve& curve, const std::string& style, size_t run,
                 const std::string& title) {
    if (curve.x.empty()) return;
    const std::string name = "$curve" + std::to_string(curves_++);
    data_ += name + " << end_of_curve\n";
    for (size_t i = 0; i < curve.x.size(); ++i) {
      data_ += digits(curve.x[i]) + ' ' + digits(curve.y[i]) + '\n';
    }
    data_ += "end_of_curve\n";
    elements_ += (elements_.empty() ? "plot " : ", \\\n  ") + name + " with " + style +
                 " linecolor rgb '" + colours[run % colours.size()] + "' " +
                 (title.empty() ? "notitle" : "title " + quoted(title));
  }

  void add_panel(const std::string& label, double origin, double height) {
    if (elements_.empty()) return;
    script_ += data_;
    if (!started_) script_ += "set multiplot\n";
    started_ = true;
    script_ += "set origin 0," + digits(origin) + "\nset size 1," + digits(height) +
               "\nset ylabel " + quoted(label) + "\n" + elements_ + "\n";
    elements_.clear();
    data_.clear();
  }

  void add_losses() {
    for (size_t i = 0; i < runs_.size(); ++i) {
      const RunMetrics& metrics = runs_[i].metrics;
      Curve curve = curve_of(metrics.training, axis_, &RunMetrics::Training::loss);
      if (plot_.smoothing > 1) {
        add_curve(curve, "lines linewidth 0.5 dashtype 3", i, "");
        curve.y = smoothed(curve.y, plot_.smoothing);
      }
      add_curve(curve, "lines linewidth 2", i, runs_[i].name);
      add_curve(curve_of(metrics.validation, axis_, &RunMetrics::Validation::loss),
                "linespoints linewidth 1 dashtype 2 pointtype 7 pointsize 0.6", i,
                runs_[i].name + ", validation");
    }
    add_panel("loss, nats a token", 0.37, 0.63);
  }

  void add_throughput() {
    for (size_t i = 0; i < runs_.size(); ++i) {
      Curve curve =
          curve_of(runs_[i].metrics.training, axis_, &RunMetrics::Training::tokens_per_second);
      curve.y = smoothed(curve.y, plot_.smoothing);
      add_curve(curve, "lines linewidth 2", i, runs_[i].name);
    }
    script_ += "set yrange [0:*]\nunset key\n";
    add_panel("tokens/s", 0, 0.37);
  }

  const std::span<const PlottedRun> runs_;
  const RunPlot& plot_;
  const HorizontalAxis axis_;
  std::string script_, data_, elements_;
  int curves_ = 0;
  bool started_ = false;
};

}  // namespace

std::string plot_script(std::span<const PlottedRun> runs, const RunPlot& plot) {
  if (plot.smoothing < 1) {
    throw ConfigError("curves can not be smoothed over this",
                      {.expected = "1 line or more", .found = std::to_string(plot.smoothing)});
  }
  if (runs.empty()) throw ConfigError("there is no run to draw");
  return ScriptWriter(runs, plot).write();
}

std::vector<std::string> run_names(std::span<const std::filesystem::path> run_folders) {
  std::vector<std::string> names;
  for (const auto& folder : run_folders) {
    std::filesystem::path whole = std::filesystem::absolute(folder).lexically_normal();
    if (!whole.has_filename()) whole = whole.parent_path();  // it ended in a slash
    names.push_back(whole.filename().string());
  }
  std::vector<std::string> distinct = names;
  for (size_t i = 0; i < names.size(); ++i) {
    if (std::ranges::count(names, names[i]) > 1) distinct[i] = run_folders[i].string();
  }
  return distinct;
}

}  // namespace farskip
