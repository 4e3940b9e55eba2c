#include "farskip/simulate/simulate.h"

namespace farskip {

Span span_of(const Op& op) {
  const Attributes& a = op.attributes;
  return {.op = op.id,
          .name = std::string(to_string(op.kind)) + (a.again ? " again" : ""),
          .layer = a.layer,
          .micro_batch = a.micro_batch,
          .chunk = a.chunk,
          .piece = a.piece,
          .lane = op.lane};
}

Timeline timeline_of(const Graph& graph, const Schedule& schedule, const OpTimes& times) {
  Timeline timeline{.origin = Timeline::Origin::simulated,
                    .title = graph.description() + ", " + schedule.name,
                    .rank = 0,
                    .step_seconds = times.step,
                    .spans = {}};
  for (const Op& op : graph.ops()) {
    if (op.kind == OpKind::join) continue;
    Span span = span_of(op);
    // A collective's time starts when its last rank enters: no skew in a simulation.
    span.posted = span.start = times.started[op.id];
    span.end = times.ended[op.id];
    timeline.spans.push_back(span);
  }
  return timeline;
}

Timeline simulate(const Graph& graph, const Schedule& schedule, const Durations& durations,
                  const Contention& contention, HostModel host) {
  return timeline_of(graph, schedule, evaluate(graph, schedule, durations, contention, host));
}

}  // namespace farskip
