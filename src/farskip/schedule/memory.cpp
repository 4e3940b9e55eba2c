#include "farskip/schedule/memory.h"

#include <algorithm>

#include "farskip/schedule/launch.h"

namespace farskip {
namespace {

// Counts bytes instead of allocating them.
class ByteCounter final : public Launcher {
 public:
  ByteCounter(const Graph& graph, const MemoryOptions& options)
      : graph_(graph), options_(options), allocated_(graph.values().size(), false) {}

  double peak() const { return peak_; }

  void launch(const Step& step) override {
    if (options_.on_device) {
      host_seconds_ = options_.on_device->launched[step.op] + options_.launch_seconds;
    }
    for (ValueId output : graph_.op(step.op).outputs) {
      const ValueId whole = graph_.value(output).part_of;
      const ValueId target = whole == none ? output : whole;
      if (allocated_[target]) continue;
      allocated_[target] = true;
      now_ += bytes(target);
    }
    peak_ = std::max(peak_, now_);
    if (!options_.recorded) return;
    for (ValueId value : step.free_after) {
      if (stays_on_lane(value)) free(value);
    }
  }

  bool sizes_known(const Step& step) override {
    return std::ranges::all_of(graph_.predecessors(step.op), [&](OpId before) {
      return !graph_.op(before).host_waits || options_.on_device->ended[before] <= host_seconds_;
    });
  }

  void free(ValueId id) override {
    if (graph_.value(id).part_of != none || !allocated_[id]) return;
    now_ -= bytes(id);
    allocated_[id] = false;
  }

 private:
  bool stays_on_lane(ValueId id) const {
    return std::ranges::all_of(
        graph_.consumers(id), [&](OpId reader) { return graph_.op(reader).lane == Lane::compute; });
  }

  double bytes(ValueId id) const {
    return options_.at_bound ? graph_.bound_bytes(id) : graph_.expected_bytes(id);
  }

  const Graph& graph_;
  const MemoryOptions& options_;
  std::vector<bool> allocated_;  // by value
  double host_seconds_ = 0;      // when the host gets to its next launch
  double now_ = 0, peak_ = 0;
};

}  // namespace

double peak_activation_bytes(const Graph& graph, const Schedule& schedule,
                             const MemoryOptions& options) {
  ByteCounter counter(graph, options);
  launch_all(schedule, options.on_device != nullptr, counter);
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
