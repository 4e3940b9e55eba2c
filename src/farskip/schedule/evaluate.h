#pragma once

#include <span>
#include <vector>

#include "farskip/schedule/schedule.h"

namespace farskip {

// When each op was launched, started and ended: seconds from the start of the step, by OpId.
struct OpTimes {
  std::vector<double> launched, started, ended;
  double step = 0;  // the end of the last op
};

// Plays a schedule through: lanes are first in, first out, an op starts when it is launched, its
// lane is free and what it waits for has ended; while both lanes are busy each runs slower by its
// contention factor. `not_before`: by OpId, what other ranks hold it back until; empty: nothing.
// Throws ScheduleError if it gets stuck.
OpTimes evaluate(const Graph& graph, const Schedule& schedule, const Durations& durations,
                 const Contention& contention = {}, HostModel host = {},
                 std::span<const double> not_before = {});

}  // namespace farskip
