#include "farskip/schedule/memory.h"

#include <algorithm>

namespace farskip {

double peak_activation_bytes(const Graph& graph, const Schedule& schedule, bool at_bound) {
  auto bytes = [&](ValueId id) {
    return at_bound ? graph.bound_bytes(id) : graph.expected_bytes(id);
  };
  std::vector<bool> allocated(graph.values().size(), false);
  double now = 0, peak = 0;
  for (const Step& step : schedule.steps) {
    for (ValueId output : graph.op(step.op).outputs) {
      const ValueId whole = graph.value(output).part_of;
      const ValueId target = whole == none ? output : whole;
      if (allocated[target]) continue;
      allocated[target] = true;
      now += bytes(target);
    }
    peak = std::max(peak, now);
    for (ValueId id : step.free_after) {
      if (graph.value(id).part_of == none && allocated[id]) now -= bytes(id);
    }
  }
  return peak;
}

double parameter_bytes(const Graph& graph) {
  double total = 0;
  for (const Value& value : graph.values()) {
    if (value.kind == ValueKind::parameter) total += graph.expected_bytes(value.id);
  }
  return total;
}

}  // namespace farskip
