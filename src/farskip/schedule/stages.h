#pragma once

#include <span>
#include <vector>

#include "farskip/schedule/evaluate.h"
#include "farskip/schedule/schedule.h"

namespace farskip {

// One stage of a pipeline (graph/pipeline.h) with its schedule.
struct ScheduledStage {
  const Graph& graph;
  const Schedule& schedule;
};

// Proves that schedules of the stages of one step, each verified for itself, end together: every
// message has both its ends, in one order, and no stages wait for each other in a circle, even if
// each of them does one thing at a time. Throws ScheduleError naming stage and op.
void verify_stages(std::span<const ScheduledStage> stages);

// When the ops of every stage run: a receive starts no sooner than its message was sent, a sum over
// stages when the last of them has got there. durations[s] are of stage s. Throws as evaluate.
std::vector<OpTimes> evaluate_stages(std::span<const ScheduledStage> stages,
                                     std::span<const Durations> durations,
                                     const Contention& contention = {}, HostModel host = {});

}  // namespace farskip
