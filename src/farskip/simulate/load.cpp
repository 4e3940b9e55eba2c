#include "farskip/simulate/load.h"

#include <algorithm>

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

}  // namespace

double LoadModel::factor(double busy) const {
  if (steady <= rested) return 1;
  const double way = std::clamp((busy - rested) / (steady - rested), 0.0, 1.0);
  return 1 + (slowdown - 1) * way * way;
}

LoadFit fit_load(const OverlapMetrics& rested, const OverlapMetrics& steady, Contention measured) {
  if (2 * steady.overlapped < std::min(steady.compute, steady.communication)) {
    return {.load = {}, .contention = measured};
  }
  LoadFit fit{
      .load = {.rested = rested.compute / rested.step, .steady = steady.compute / steady.step},
      .contention = measured};
  const double lost = std::max(0.0, steady.compute - rested.compute);
  const double explained = steady.overlapped * (1 - 1 / measured.compute);
  if (explained <= lost) {
    fit.load.slowdown = 1 + (lost - explained) / rested.compute;
  } else {
    fit.contention.compute = 1 / (1 - lost / steady.overlapped);
  }
  return fit;
}

Durations durations_under_load(const Graph& graph, const Schedule& schedule,
                               const Durations& durations, const LoadModel& load,
                               Contention contention, HostModel host) {
  Durations loaded = durations;
  for (int i = 0; i < rounds && load.slowdown != 1; ++i) {
    const double busy = busy_share(graph, evaluate(graph, schedule, loaded, contention, host));
    for (const Op& op : graph.ops()) {
      if (op.lane == Lane::compute) loaded[op.id] = durations[op.id] * load.factor(busy);
    }
  }
  return loaded;
}

}  // namespace farskip
