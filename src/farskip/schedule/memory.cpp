#include "farskip/schedule/memory.h"

#include <algorithm>

namespace farskip {

namespace {

// Launches steps one by one, as runtime/executor.cpp does, and counts bytes.
class Launcher {
 public:
  Launcher(const Graph& graph, const Schedule& schedule, const MemoryOptions& options)
      : graph_(graph),
        steps_(schedule.steps),
        options_(options),
        allocated_(graph.values().size(), false),
        launched_(graph.ops().size(), false),
        known_(graph.ops().size(), false) {}

  double peak() {
    size_t freed = 0;
    for (size_t next = 0; next < steps_.size(); ++next) {
      if (!launched_[steps_[next].op]) {
        if (options_.runs_ahead && steps_[next].lane == Lane::communication) run_ahead(next);
        launch(steps_[next]);
      }
      for (; freed < steps_.size() && launched_[steps_[freed].op]; ++freed) free(steps_[freed]);
    }
    return peak_;
  }

 private:
  bool sizes_known(const Step& step) const {
    for (OpId before : graph_.predecessors(step.op)) {
      if (graph_.op(before).host_waits && !known_[before]) return false;
    }
    return true;
  }

  void run_ahead(size_t next) {
    for (size_t i = next + 1; i < steps_.size() && !sizes_known(steps_[next]); ++i) {
      const Step& step = steps_[i];
      if (launched_[step.op] || step.lane == Lane::communication) continue;
      for (OpId awaited : step.wait_for) {
        if (!launched_[awaited]) return;
      }
      if (!sizes_known(step)) return;
      launch(step);
    }
  }

  void launch(const Step& step) {
    launched_[step.op] = true;
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

  void free(const Step& step) {
    for (ValueId id : step.free_after) {
      if (graph_.value(id).part_of == none && allocated_[id]) now_ -= bytes(id);
    }
  }

  double bytes(ValueId id) const {
    return options_.at_bound ? graph_.bound_bytes(id) : graph_.expected_bytes(id);
  }

  const Graph& graph_;
  const std::vector<Step>& steps_;
  const MemoryOptions options_;
  std::vector<bool> allocated_;         // by value
  std::vector<bool> launched_, known_;  // by op; known: its sizes, to the host
  double now_ = 0, peak_ = 0;
};

}  // namespace

double peak_activation_bytes(const Graph& graph, const Schedule& schedule,
                             const MemoryOptions& options) {
  return Launcher(graph, schedule, options).peak();
}

double parameter_bytes(const Graph& graph) {
  double total = 0;
  for (const Value& value : graph.values()) {
    if (value.kind == ValueKind::parameter) total += graph.expected_bytes(value.id);
  }
  return total;
}

}  // namespace farskip
