#pragma once

#include "farskip/schedule/evaluate.h"
#include "farskip/trace/metrics.h"

namespace farskip {

// What ops of the compute lane take where it has less time to rest than in the run that their
// durations come from: a device that draws all the power that it may lowers its clock, which what
// waits for memory hardly feels.
struct LoadModel {
  double rested = 0;               // share of that run's step in which compute ran
  double steady = 1;               // the same of a run that did not wait for what others bring
  double slowdown = 1;             // of compute in that one, beside what contention costs
  std::vector<double> by_op = {};  // the same by OpId, where ops differ

  // Of an op in a step that computes `busy` of its time. Clocks hold until power does not last,
  // late and then fast: it grows with the square of the way from `rested` to `steady`.
  double factor(OpId op, double busy) const;
};

// The ops of a graph, run in one way.
struct LoadRun {
  OverlapMetrics metrics;
  Durations seconds;     // of every op
  Durations overlapped;  // and of it what lay beside communication
};

struct LoadFit {
  LoadModel load;
  Contention contention;
};

// From a blocking run, and one of the same ops that did not wait. What `measured` contention does
// not explain of the time that ops of a kind lost in it is the load's; where it would explain more
// than all, it is taken to be as much less. Where little ran side by side in it: `measured`, and no
// load.
LoadFit fit_load(const Graph& graph, const LoadRun& rested, const LoadRun& steady,
                 const Contention& measured);

// The durations of a step that is played by this schedule: how busy its compute lane is and how
// long its ops take fit each other. Throws as evaluate.
Durations durations_under_load(const Graph& graph, const Schedule& schedule,
                               const Durations& durations, const LoadModel& load,
                               const Contention& contention = {}, HostModel host = {});

}  // namespace farskip
