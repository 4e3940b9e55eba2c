#include "farskip/simulate/load.h"

#include <algorithm>
#include <map>

namespace farskip {
namespace {

constexpr int rounds = 4;  // each brings the two several times closer

double busy_share(const Graph& graph, const OpTimes& times) {
  double busy = 0;
  for (const Op& op : graph.ops()) {
    if (op.lane == Lane::compute) busy += times.ended[op.id] - times.started[op.id];
  }
  return times.step > 0 ? busy / times.step : 0;
}

// What some ops took, and lost in the run that did not wait.
struct Lost {
  double rested = 0, lost = 0, overlapped = 0;

  double explained(double contention) const { return overlapped * (1 - 1 / contention); }
  double slowdown(double contention) const {
    return rested > 0 ? 1 + std::max(0.0, lost - explained(contention)) / rested : 1;
  }
  double contention(double measured) const {
    if (overlapped <= 0 || explained(measured) <= lost) return measured;
    return 1 / (1 - std::max(0.0, lost) / overlapped);
  }
};

}  // namespace

double LoadModel::factor(OpId op, double busy) const {
  if (steady <= rested) return 1;
  const double way = std::clamp((busy - rested) / (steady - rested), 0.0, 1.0);
  return 1 + ((by_op.empty() ? slowdown : by_op[op]) - 1) * way * way;
}

LoadFit fit_load(const Graph& graph, const LoadRun& rested, const LoadRun& steady,
                 const Contention& measured) {
  const OverlapMetrics& all = steady.metrics;
  if (2 * all.overlapped < std::min(all.compute, all.communication)) {
    return {.load = {}, .contention = measured};
  }
  std::map<OpKind, Lost> by_kind;
  Lost sum;
  for (const Op& op : graph.ops()) {
    if (op.lane != Lane::compute) continue;
    for (Lost* lost : {&by_kind[op.kind], &sum}) {
      lost->rested += rested.seconds[op.id];
      lost->lost += steady.seconds[op.id] - rested.seconds[op.id];
      lost->overlapped += steady.overlapped[op.id];
    }
  }
  LoadFit fit{.load = {.rested = rested.metrics.compute / rested.metrics.step,
                       .steady = all.compute / all.step,
                       .slowdown = sum.slowdown(measured.compute)},
              .contention = {sum.contention(measured.compute), measured.communication}};
  for (const Op& op : graph.ops()) {
    const Lost& lost = by_kind[op.kind];
    fit.load.by_op.push_back(lost.slowdown(measured.compute));
    fit.contention.by_op.push_back(lost.contention(measured.compute));
  }
  return fit;
}

Durations durations_under_load(const Graph& graph, const Schedule& schedule,
                               const Durations& durations, const LoadModel& load,
                               const Contention& contention, HostModel host) {
  Durations loaded = durations;
  for (int i = 0; i < rounds && load.steady > load.rested; ++i) {
    const double busy = busy_share(graph, evaluate(graph, schedule, loaded, contention, host));
    for (const Op& op : graph.ops()) {
      if (op.lane == Lane::compute) loaded[op.id] = durations[op.id] * load.factor(op.id, busy);
    }
  }
  return loaded;
}

}  // namespace farskip
