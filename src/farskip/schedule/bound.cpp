#include <algorithm>

#include "farskip/schedule/schedule.h"

namespace farskip {

double LowerBound::seconds() const { return std::max({compute, communication, path}); }

const char* LowerBound::limit() const {
  if (compute >= communication && compute >= path) return "compute";
  return communication >= path ? "communication" : "path";
}

LowerBound lower_bound(const Graph& graph, const Durations& durations) {
  LowerBound bound;
  std::vector<double> end(graph.ops().size(), 0);
  for (const Op& op : graph.ops()) {
    (op.lane == Lane::compute ? bound.compute : bound.communication) += durations.at(op.id);
    for (OpId before : graph.predecessors(op.id)) end[op.id] = std::max(end[op.id], end[before]);
    end[op.id] += durations[op.id];
    bound.path = std::max(bound.path, end[op.id]);
  }
  return bound;
}

}  // namespace farskip
