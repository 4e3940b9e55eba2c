#include "farskip/trace/metrics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "farskip/base/error.h"
#include "farskip/trace/category.h"

namespace farskip {
namespace {

using Chosen = std::function<bool(const Span&)>;

Intervals time_of(const Timeline& timeline, const Chosen& chosen) {
  Intervals parts;
  for (const Span& span : timeline.spans) {
    if (chosen(span)) parts.push_back({span.start, span.end});
  }
  return union_of(std::move(parts));
}

void check(const Timeline& timeline) {
  for (const Span& span : timeline.spans) {
    const bool finite =
        std::isfinite(span.posted) && std::isfinite(span.start) && std::isfinite(span.end);
    if (finite && span.end >= span.start) continue;
    throw Error("a span has impossible times",
                {.where = "timeline '" + timeline.title + "': " + describe(span),
                 .expected = "finite times, start not after end",
                 .found = "start " + std::to_string(span.start) + " s, end " +
                          std::to_string(span.end) + " s"});
  }
}

// The dispatch that starts first and the combine that ends last, or null.
struct Ends {
  const Span* first_dispatch = nullptr;
  const Span* last_combine = nullptr;
};

Ends find_ends(const Timeline& timeline) {
  Ends ends;
  for (const Span& span : timeline.spans) {
    if (is_backward(span)) continue;
    const SpanCategory category = category_of(span);
    if (category == SpanCategory::dispatch &&
        (!ends.first_dispatch || span.start < ends.first_dispatch->start)) {
      ends.first_dispatch = &span;
    }
    if (category == SpanCategory::combine &&
        (!ends.last_combine || span.end > ends.last_combine->end)) {
      ends.last_combine = &span;
    }
  }
  return ends;
}

std::optional<double> percent(double part, double whole) {
  if (!(whole > 0)) return std::nullopt;
  return std::clamp(100 * part / whole, 0.0, 100.0);
}

}  // namespace

Intervals busy_time(const Timeline& timeline, Lane lane) {
  return time_of(timeline, [lane](const Span& span) { return span.lane == lane; });
}

Intervals exposed_time(const Timeline& timeline) {
  return difference(busy_time(timeline, Lane::communication), busy_time(timeline, Lane::compute));
}

std::optional<double> percent_overlapped(const Timeline& timeline,
                                         const std::function<bool(const Span&)>& chosen) {
  const Intervals time = time_of(timeline, chosen);
  const Intervals compute = busy_time(timeline, Lane::compute);
  return percent(total_seconds(intersection(time, compute)), total_seconds(time));
}

OverlapMetrics measure_overlap(const Timeline& timeline) {
  check(timeline);
  OverlapMetrics metrics;
  metrics.step = std::max(0.0, timeline.step_seconds);
  for (const Span& span : timeline.spans) {
    metrics.step = std::max(metrics.step, span.end);
    if (span.lane == Lane::communication) {
      metrics.skew += std::max(0.0, span.start - span.posted);
    }
  }

  const Intervals compute = busy_time(timeline, Lane::compute);
  const Intervals communication = busy_time(timeline, Lane::communication);
  metrics.compute = total_seconds(compute);
  metrics.idle_compute = std::max(0.0, metrics.step - metrics.compute);
  metrics.communication = total_seconds(communication);
  metrics.overlapped = total_seconds(intersection(communication, compute));
  metrics.exposed = total_seconds(difference(communication, compute));

  const Ends ends = find_ends(timeline);
  const Chosen is_interior = [&ends](const Span& span) {
    return span.lane == Lane::communication && &span != ends.first_dispatch &&
           &span != ends.last_combine;
  };
  const Intervals interior = time_of(timeline, is_interior);
  metrics.interior_communication = total_seconds(interior);
  metrics.interior_exposed = total_seconds(difference(interior, compute));
  const Intervals backward =
      time_of(timeline, [&](const Span& span) { return is_interior(span) && is_backward(span); });
  metrics.backward_communication = total_seconds(backward);
  metrics.backward_exposed = total_seconds(difference(backward, compute));
  metrics.set_percentages();
  return metrics;
}

void OverlapMetrics::set_percentages() {
  percent_overlapped = percent(communication - exposed, communication);
  interior_percent = percent(interior_communication - interior_exposed, interior_communication);
  backward_percent = percent(backward_communication - backward_exposed, backward_communication);
  const double forward = interior_communication - backward_communication;
  forward_percent = percent(forward - (interior_exposed - backward_exposed), forward);
}

std::optional<double> backward_seconds(const Timeline& timeline) {
  std::optional<double> start;
  for (const Span& span : timeline.spans) {
    if (is_backward(span)) start = std::min(start.value_or(span.start), span.start);
  }
  if (!start) return std::nullopt;
  return timeline.step_seconds - *start;
}

}  // namespace farskip
