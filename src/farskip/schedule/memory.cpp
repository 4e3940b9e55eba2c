#include "farskip/schedule/memory.h"

#include <algorithm>

#include "farskip/schedule/launch.h"

namespace farskip {
namespace {

// Counts bytes instead of allocating them.
class ByteCounter final : public Launcher {
 public:
  ByteCounter(const Graph& graph, bool at_bound)
      : graph_(graph),
        at_bound_(at_bound),
        allocated_(graph.values().size(), false),
        known_(graph.ops().size(), false) {}

  double peak() const { return peak_; }

  void launch(const Step& step) override {
    for (OpId before : graph_.predecessors(step.op)) known_[before] = true;
    if (step.lane == Lane::compute) known_[step.op] = true;
    for (ValueId output : graph_.op(step.op).outputs) {
      const ValueId whole = graph_.value(output).part_of;
      const ValueId target = whole == none ? output : whole;
      if (allocated_[target]) continue;
      allocated_[target] = true;
      now_ += bytes(target);
    }
    peak_ = std::max(peak_, now_);
  }

  // A collective's result is known once a step has waited for it, no sooner.
  bool sizes_known(const Step& step) override {
    return std::ranges::all_of(graph_.predecessors(step.op), [&](OpId before) {
      return !graph_.op(before).host_waits || known_[before];
    });
  }

  void free(ValueId id) override {
    if (graph_.value(id).part_of == none && allocated_[id]) now_ -= bytes(id);
  }

 private:
  double bytes(ValueId id) const {
    return at_bound_ ? graph_.bound_bytes(id) : graph_.expected_bytes(id);
  }

  const Graph& graph_;
  const bool at_bound_;
  std::vector<bool> allocated_;  // by value
  std::vector<bool> known_;      // by op: the host has its result
  double now_ = 0, peak_ = 0;
};

}  // namespace

double peak_activation_bytes(const Graph& graph, const Schedule& schedule,
                             const MemoryOptions& options) {
  ByteCounter counter(graph, options.at_bound);
  launch_all(schedule, options.lanes_queue, counter);
  return counter.peak();
}

double parameter_bytes(const Graph& graph) {
  double total = 0;
  for (const Value& value : graph.values()) {
    if (value.kind == ValueKind::parameter) total += graph.expected_bytes(value.id);
  }
  return total;
}

}  // namespace farskip
