#include "farskip/trace/svg.h"

#include <algorithm>
#include <array>
#include <limits>
#include <set>

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/base/format.h"
#include "farskip/trace/category.h"
#include "farskip/trace/metrics.h"
#include "farskip/trace/svg_writer.h"

namespace farskip {
namespace {

constexpr double margin = 16, lane_label_width = 62, figures_width = 148;
constexpr double title_height = 22, strip_height = 13, lane_height = 30, lane_gap = 4;
constexpr double row_height = title_height + 2 * (strip_height + lane_height) + lane_gap;
constexpr double row_gap = 16, axis_height = 34, legend_line = 20, legend_font = 11.5;
constexpr double narrow = 0.4;  // pixels; spans below this are drawn together
constexpr const char* dark = "#1f2430";
constexpr const char* grey = "#667085";
constexpr const char* exposed_fill = "url(#exposed)";

// Two shades of one colour, for layers of even and odd number. Dark text is readable on all.
struct Shades {
  const char* even;
  const char* odd;
};
constexpr std::array<Shades, span_category_count> palette = {{
    {"#a9cbf5", "#84b3ee"},  // attention
    {"#a5dfd3", "#7fcdbd"},  // dense
    {"#bfe3a0", "#9fd276"},  // routed
    {"#d9dbe1", "#c3c7d0"},  // small
    {"#fcd590", "#f6bf5b"},  // dispatch
    {"#d3bdf3", "#bb9dea"},  // combine
    {"#e0d3c1", "#cdbba1"},  // other communication
}};

std::string_view fill_of(SpanCategory category, int layer) {
  const Shades& shades = palette.at(static_cast<size_t>(category));
  return layer % 2 == 0 ? shades.even : shades.odd;
}

// The part of one timeline that is shown, and where its pixels are.
struct View {
  Interval window;
  double x = 0, y = 0, width = 0;
  double pixels_per_second = 0;
  double pixel(double seconds) const { return x + (seconds - window.start) * pixels_per_second; }
};

double end_of(const Timeline& timeline) { return measure_overlap(timeline).step; }

Interval layer_window(const Timeline& timeline, const LayerRange& layers) {
  constexpr double never = std::numeric_limits<double>::infinity();
  double start = never, next = never;
  int last_layer = 0;
  for (const Span& span : timeline.spans) last_layer = std::max(last_layer, span.layer);
  for (const Span& span : timeline.spans) {
    if (span.lane != Lane::compute) continue;
    if (span.layer == layers.first) start = std::min(start, span.start);
    if (span.layer == layers.last + 1) next = std::min(next, span.start);
  }
  if (start == never) {
    throw UsageError("no computation of this layer in timeline '" + timeline.title + "'",
                     {.where = "layers",
                      .expected = "1.." + std::to_string(last_layer),
                      .found = std::to_string(layers.first)});
  }
  return {start, next == never ? end_of(timeline) : next};
}

Interval shown_part(const Timeline& timeline, const SvgOptions& options) {
  if (options.layers) return layer_window(timeline, *options.layers);
  if (options.window) return {options.window->start, options.window->end};
  return {0, end_of(timeline)};
}

void check(std::span<const Timeline> timelines, const SvgOptions& options) {
  if (timelines.empty()) throw UsageError("no timeline to draw");
  if (options.width < 480) {
    throw UsageError("picture too narrow", {.where = "width",
                                            .expected = "at least 480 pixels",
                                            .found = std::to_string(options.width)});
  }
  if (options.window && options.layers) {
    throw UsageError("a picture shows a window or layers, not both");
  }
  if (options.window &&
      !(options.window->start >= 0 && options.window->end > options.window->start &&
        options.window->end < std::numeric_limits<double>::infinity())) {
    throw UsageError("empty window", {.where = "window",
                                      .expected = "0 <= start < end",
                                      .found = std::to_string(options.window->start) + ".." +
                                               std::to_string(options.window->end) + " s"});
  }
  if (options.layers && options.layers->last < options.layers->first) {
    throw UsageError("empty range of layers", {.where = "layers"});
  }
}

std::string spaced(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

// The longest of a few names for the op that fits, or nothing.
std::string fitting_label(const Span& span, double width, double font_size) {
  const std::string full = spaced(span.name);
  std::vector<std::string> names = {full};
  const size_t space = full.find(' ');
  if (space != std::string::npos) {
    const bool last_word = category_of(span) == SpanCategory::attention;
    names.push_back(last_word ? full.substr(full.rfind(' ') + 1) : full.substr(0, space));
  }
  for (const std::string& name : names) {
    if (text_width(name, font_size) + 4 <= width) return name;
  }
  return {};
}

// Draws one lane: ops, their labels, and runs of ops too narrow to be seen one by one.
class LanePainter {
 public:
  LanePainter(SvgWriter& svg, const View& view, double top) : svg_(svg), view_(view), top_(top) {}

  void paint(const std::vector<const Span*>& spans) {
    for (const Span* span : spans) {
      const double left = view_.pixel(std::max(span->start, view_.window.start));
      const double right = view_.pixel(std::min(span->end, view_.window.end));
      if (right - left >= narrow) {
        flush();
        paint_op(*span, left, right);
      } else {
        add_narrow(*span, left, right);
      }
    }
    flush();
  }

 private:
  void paint_op(const Span& span, double left, double right) {
    const std::string tooltip = spaced(describe(span)) + ": " + short_time(span.seconds()) +
                                " (from " + short_time(span.start) + " to " + short_time(span.end) +
                                ")";
    const double edge = right - left > 3 ? 0.5 : 0;  // a hair of white between neighbours
    svg_.rect(left, top_, right - left - edge, lane_height, fill_of(category_of(span), span.layer),
              tooltip);
    const std::string label = fitting_label(span, right - left, 10);
    if (!label.empty()) {
      svg_.text((left + right) / 2, top_ + lane_height / 2 + 3.5, label,
                {.size = 10, .fill = dark, .anchor = "middle"});
    }
  }

  void add_narrow(const Span& span, double left, double right) {
    if (count_ > 0 && (category_of(span) != category_ || left > right_ + narrow)) flush();
    if (count_ == 0) {
      left_ = left;
      category_ = category_of(span);
      layer_ = span.layer;
    }
    right_ = right;
    ++count_;
  }

  void flush() {
    if (count_ == 0) return;
    svg_.rect(left_, top_, std::max(narrow, right_ - left_), lane_height,
              fill_of(category_, layer_),
              std::to_string(count_) + (count_ == 1 ? " short op" : " short ops"));
    count_ = 0;
  }

  SvgWriter& svg_;
  const View& view_;
  double top_;
  int count_ = 0, layer_ = 0;
  double left_ = 0, right_ = 0;
  SpanCategory category_ = SpanCategory::small;
};

std::vector<const Span*> shown_spans(const Timeline& timeline, Lane lane, const Interval& window) {
  std::vector<const Span*> spans;
  for (const Span& span : timeline.spans) {
    if (span.lane == lane && span.start < window.end && span.end > window.start) {
      spans.push_back(&span);
    }
  }
  std::stable_sort(spans.begin(), spans.end(),
                   [](const Span* a, const Span* b) { return a->start < b->start; });
  return spans;
}

// Runs of consecutive ops of one layer as a strip with the layer's number.
void paint_layers(SvgWriter& svg, const View& view, double top,
                  const std::vector<const Span*>& spans) {
  for (size_t i = 0; i < spans.size();) {
    const int layer = spans[i]->layer;
    const double start = std::max(spans[i]->start, view.window.start);
    double end = start;
    for (; i < spans.size() && spans[i]->layer == layer; ++i) end = std::max(end, spans[i]->end);
    if (layer == 0) continue;
    const double left = view.pixel(start), right = view.pixel(std::min(end, view.window.end));
    if (right - left < 1) continue;
    svg.rect(left, top, right - left - 0.5, strip_height - 2,
             layer % 2 == 0 ? "#eceef3" : "#dfe3eb", "layer " + std::to_string(layer));
    const std::string number = std::to_string(layer), name = "layer " + number;
    const bool long_fits = text_width(name, 9) + 4 <= right - left;
    if (long_fits || text_width(number, 9) + 3 <= right - left) {
      svg.text((left + right) / 2, top + 8.5, long_fits ? name : number,
               {.size = 9, .fill = grey, .anchor = "middle"});
    }
  }
}

void paint_exposed(SvgWriter& svg, const View& view, double top, const Timeline& timeline) {
  for (const Interval& gap : intersection(exposed_time(timeline), {view.window})) {
    const double left = view.pixel(gap.start), right = view.pixel(gap.end);
    svg.rect(left, top, std::max(right - left, narrow), lane_height, exposed_fill,
             "exposed communication: " + short_time(gap.seconds()));
  }
}

void paint_figures(SvgWriter& svg, double x, double top, const OverlapMetrics& metrics) {
  svg.text(x, top + 14, short_time(metrics.step) + " step", {.size = 14, .bold = true});
  std::string share = "no communication";
  if (metrics.percent_overlapped) {
    share = format_fixed(*metrics.percent_overlapped, 1) + " % overlapped";
  }
  svg.text(x, top + 33, share, {.size = 12});
  const bool any = metrics.exposed > 0;
  svg.text(x, top + 51, short_time(metrics.exposed) + " exposed",
           {.size = 12, .fill = any ? "#b3261e" : grey});
}

void paint_row(SvgWriter& svg, const View& view, const Timeline& timeline, bool name_rank) {
  const char* origin = timeline.origin == Timeline::Origin::measured ? "measured" : "simulated";
  svg.text(margin, view.y + 14, timeline.title, {.size = 13, .bold = true},
           name_rank ? origin + (", rank " + std::to_string(timeline.rank)) : origin);

  const double compute_top = view.y + title_height + strip_height;
  const double communication_top = compute_top + lane_height + lane_gap;
  const double shown_end = view.pixel(std::min(end_of(timeline), view.window.end));
  for (double top : {compute_top, communication_top}) {
    svg.rect(view.x, top, std::max(0.0, shown_end - view.x), lane_height, "#f4f5f8");
  }
  svg.text(view.x - 6, compute_top + 19, "compute", {.size = 10.5, .fill = grey, .anchor = "end"});
  svg.text(view.x - 6, communication_top + 19, "network",
           {.size = 10.5, .fill = grey, .anchor = "end"});

  const auto compute = shown_spans(timeline, Lane::compute, view.window);
  const auto communication = shown_spans(timeline, Lane::communication, view.window);
  paint_layers(svg, view, view.y + title_height, compute);
  paint_exposed(svg, view, compute_top, timeline);
  LanePainter(svg, view, compute_top).paint(compute);
  LanePainter(svg, view, communication_top).paint(communication);
  paint_layers(svg, view, communication_top + lane_height + 2, communication);
  svg.line(shown_end, compute_top - strip_height, shown_end, communication_top + lane_height, dark,
           1.5);
  paint_figures(svg, view.x + view.width + 14, compute_top, measure_overlap(timeline));
}

// Boxes and names of what occurs, in lines of the given width. Returns the height taken.
double paint_legend(SvgWriter& svg, double top, double width, std::span<const Timeline> timelines) {
  std::set<SpanCategory> present;
  bool exposed = false;
  for (const Timeline& timeline : timelines) {
    for (const Span& span : timeline.spans) present.insert(category_of(span));
    exposed = exposed || !exposed_time(timeline).empty();
  }
  std::vector<std::pair<std::string_view, std::string>> entries;
  for (SpanCategory category : present) {
    entries.emplace_back(fill_of(category, 1), to_string(category));
  }
  if (exposed) entries.emplace_back(exposed_fill, "exposed communication");
  double x = margin, y = top;
  for (const auto& [fill, name] : entries) {
    const double entry_width = 18 + text_width(name, legend_font) + 14;
    if (x > margin && x + entry_width > width) {
      x = margin;
      y += legend_line;
    }
    svg.rect(x, y + 1, 13, 13, fill, {}, 2);
    svg.text(x + 18, y + 11.5, name, {.size = legend_font});
    x += entry_width;
  }
  return y + legend_line - top;
}

void paint_axis(SvgWriter& svg, const View& view, double grid_top, double top, const Ticks& ticks) {
  svg.line(view.x, top, view.x + view.width, top, "#98a2b3");
  for (double at : ticks.at) {
    const double x = view.x + at * view.pixels_per_second;
    svg.line(x, grid_top, x, top + 4, "#e4e7ec");
    svg.text(x, top + 16, tick_label(ticks, at), {.size = 10.5, .fill = grey, .anchor = "middle"});
  }
  svg.text(view.x + view.width + 14, top + 16, ticks.unit_name, {.size = 10.5, .fill = grey});
}

std::string caption(const SvgOptions& options) {
  if (options.layers) {
    const auto [first, last] = *options.layers;
    const std::string which =
        first == last ? "layer " + std::to_string(first)
                      : "layers " + std::to_string(first) + " to " + std::to_string(last);
    return which + " shown; figures at the right are of the whole step";
  }
  if (options.window) {
    return short_time(options.window->start) + " to " + short_time(options.window->end) +
           " shown; figures at the right are of the whole step";
  }
  return {};
}

}  // namespace

std::string svg_picture(std::span<const Timeline> timelines, const SvgOptions& options) {
  check(timelines, options);
  std::vector<Interval> windows;
  double longest = 0;
  bool name_ranks = false;
  for (const Timeline& timeline : timelines) {
    windows.push_back(shown_part(timeline, options));
    longest = std::max(longest, windows.back().seconds());
    name_ranks = name_ranks || timeline.rank != timelines.front().rank;
  }
  if (!(longest > 0)) throw UsageError("nothing to draw: every timeline is empty");

  SvgWriter svg;
  const double width = options.width;
  View view;
  view.x = margin + lane_label_width;
  view.width = width - view.x - figures_width - margin;
  view.pixels_per_second = view.width / longest;

  SvgWriter content;
  double y = margin;
  if (!options.title.empty()) {
    content.text(margin, y + 14, options.title, {.size = 16, .bold = true});
    y += 28;
  }
  if (const std::string note = caption(options); !note.empty()) {
    content.text(margin, y + 8, note, {.size = 11.5, .fill = grey});
    y += 20;
  }
  y += paint_legend(content, y, width - margin, timelines) + 8;
  const double rows_top = y;
  const double axis_top =
      rows_top + static_cast<double>(timelines.size()) * (row_height + row_gap) - row_gap + 8;
  svg.rect(0, 0, width, axis_top + axis_height, "#ffffff", {}, 6);
  paint_axis(svg, view, rows_top + title_height, axis_top, ticks_up_to(longest, 9));
  for (size_t i = 0; i < timelines.size(); ++i) {
    view.window = windows[i];
    view.y = rows_top + static_cast<double>(i) * (row_height + row_gap);
    paint_row(content, view, timelines[i], name_ranks);
  }
  svg.append(content);
  return svg.document(width, axis_top + axis_height,
                      options.title.empty() ? "timeline" : options.title);
}

void write_svg(const std::filesystem::path& path, std::span<const Timeline> timelines,
               const SvgOptions& options) {
  write_file_atomically(path, svg_picture(timelines, options));
}

}  // namespace farskip
