#include "farskip/trace/unhidden.h"

#include <algorithm>
#include <map>

#include "farskip/base/format.h"
#include "farskip/trace/category.h"
#include "farskip/trace/metrics.h"

namespace farskip {
namespace {

// A wait ends some microseconds after what it waited for.
constexpr double slack = 50e-6;

// By op: seconds of each collective during which the compute lane stands still.
std::map<int, double> exposed_by_op(const Timeline& timeline) {
  const Intervals compute = busy_time(timeline, Lane::compute);
  std::map<int, double> exposed;
  for (const Span& span : timeline.spans) {
    if (span.lane != Lane::communication) continue;
    exposed[span.op] = total_seconds(difference(union_of({{span.start, span.end}}), compute));
  }
  return exposed;
}

// The compute op that ends the last stretch of `collective` without computation.
std::optional<Span> op_behind(const Timeline& timeline, const Span& collective) {
  const Intervals idle = difference(union_of({{collective.start, collective.end}}),
                                    busy_time(timeline, Lane::compute));
  if (idle.empty()) return std::nullopt;
  std::optional<Span> next;
  for (const Span& span : timeline.spans) {
    if (span.lane != Lane::compute || span.start + slack < idle.back().end) continue;
    if (!next || span.start < next->start) next = span;
  }
  return next;
}

// The collective that ended just before `op` began.
std::optional<Span> awaited_by(const Timeline& timeline, const Span& op) {
  std::optional<Span> last;
  for (const Span& span : timeline.spans) {
    if (span.lane != Lane::communication || span.end > op.start + slack) continue;
    if (!last || span.end > last->end) last = span;
  }
  if (last && op.start - last->end > 4 * slack) last.reset();
  return last;
}

}  // namespace

std::optional<Unhidden> find_unhidden(const Timeline& measured, const Timeline& simulated,
                                      double tolerance) {
  const std::map<int, double> found = exposed_by_op(measured), asked = exposed_by_op(simulated);
  std::optional<Unhidden> worst;
  double lost = 0;
  for (const Span& span : measured.spans) {
    if (span.lane != Lane::communication) continue;
    const auto prediction = asked.find(span.op);
    const double predicted = prediction == asked.end() ? 0 : prediction->second;
    const double more = found.at(span.op) - predicted;
    lost += more;
    if (more > 0 && (!worst || more > worst->exposed - worst->predicted)) {
      worst = Unhidden{.collective = span,
                       .exposed = found.at(span.op),
                       .predicted = predicted,
                       .held_up = {},
                       .by = {}};
    }
  }
  if (!worst || lost < tolerance * measure_overlap(measured).step) return std::nullopt;
  worst->held_up = op_behind(measured, worst->collective);
  if (worst->held_up) worst->by = awaited_by(measured, *worst->held_up);
  return worst;
}

std::string describe(const Unhidden& unhidden) {
  std::string text = describe(unhidden.collective) + ": " + format_duration(unhidden.exposed) +
                     " without computation beside it, " + format_duration(unhidden.predicted) +
                     " predicted";
  if (!unhidden.held_up) return text;
  const std::string next = "; then came " + describe(*unhidden.held_up);
  return text + next +
         (unhidden.by ? ", which waited for " + describe(*unhidden.by)
                      : std::string(", which the host launched late"));
}

}  // namespace farskip
