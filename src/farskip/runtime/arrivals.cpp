#include "farskip/runtime/arrivals.h"

#include <algorithm>

namespace farskip {
namespace {

constexpr int never = INT32_MAX;

// Places on the compute lane.
struct Places {
  std::vector<int> of;      // by op of that lane
  std::vector<int> behind;  // by op of the other lane: what it starts behind; -1: nothing

  Places(const Graph& graph, std::span<const Step> steps)
      : of(graph.ops().size(), -1), behind(graph.ops().size(), -1) {
    int place = 0, latest = -1;  // latest: lanes are first in, first out
    for (const Step& step : steps) {
      if (step.lane == Lane::compute) {
        of[step.op] = place++;
        continue;
      }
      for (OpId op : step.wait_for) latest = std::max(latest, of[op]);
      behind[step.op] = latest;
    }
  }

  // The place of the last op that reads the value.
  int last_reader(const Graph& graph, ValueId value) const {
    int last = -1;
    for (OpId op : graph.consumers(value)) {
      if (graph.op(op).lane == Lane::communication) return never;
      last = std::max(last, of[op]);
    }
    return last;
  }
};

}  // namespace

std::vector<Arrival> plan_arrivals(const Graph& graph, std::span<const Step> steps,
                                   const std::vector<ValueId>& values) {
  const Places places(graph, steps);
  std::vector<bool> wanted(graph.values().size(), false);
  for (ValueId value : values) wanted[value] = true;
  std::vector<Arrival> arrivals;
  std::vector<int> read_until;  // by slot
  for (const Step& step : steps) {
    for (ValueId output : graph.op(step.op).outputs) {
      const ValueId whole = graph.value(output).part_of;
      const ValueId value = whole == none ? output : whole;
      if (!wanted[value]) continue;
      wanted[value] = false;  // its other parts come later, to the same place
      const int last = places.last_reader(graph, value);
      const auto free =
          last == never ? read_until.end() : std::ranges::find_if(read_until, [&](int until) {
            return until <= places.behind[step.op];
          });
      const int slot = static_cast<int>(free - read_until.begin());
      if (free == read_until.end()) read_until.emplace_back();
      read_until[slot] = last;
      arrivals.push_back({value, slot});
    }
  }
  return arrivals;
}

}  // namespace farskip
