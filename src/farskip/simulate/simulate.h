#pragma once

#include <string>

#include "farskip/schedule/evaluate.h"
#include "farskip/trace/timeline.h"

namespace farskip {

// The span of an op without its times: names and attributes. Executed and simulated runs share it.
Span span_of(const Op& op);

// The timeline of ops that ran at these times.
Timeline timeline_of(const Graph& graph, const Schedule& schedule, const OpTimes& times);

// The timeline that the schedule would leave if its ops took these times.
Timeline simulate(const Graph& graph, const Schedule& schedule, const Durations& durations,
                  const Contention& contention = {}, HostModel host = {});

}  // namespace farskip
