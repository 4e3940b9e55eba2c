#include "farskip/runtime/recording_plan.h"

#include <algorithm>

namespace farskip {
namespace {

class Planner {
 public:
  Planner(const Graph& graph, std::span<const OpPlan> plans) : graph_(graph), plans_(plans) {}

  bool can_record(const Op& op) const {
    const OpPlan& plan = plans_[op.id];
    const bool fits = computes(op.id) && plan.entry->recordable && plan.entry->recordable(op) &&
                      plan.piece == none && plan.gradients.empty() && plan.sizes_from.empty() &&
                      !op.host_waits;
    auto input_stays = [&](ValueId id) {
      return graph_.value(id).kind == ValueKind::parameter || can_stay(id);
    };
    return fits && std::ranges::all_of(op.inputs, input_stays) &&
           std::ranges::all_of(op.outputs, [&](ValueId id) { return can_stay(id); });
  }

 private:
  bool computes(OpId op) const {
    return graph_.op(op).lane == Lane::compute && graph_.op(op).kind != OpKind::join;
  }

  // A whole value of a known size that the compute lane makes, and nobody joins with others.
  bool can_stay(ValueId id) const {
    const Value& value = graph_.value(id);
    auto routed = [&](const Dim& dim) {
      return !dim.exact() && is_routed(graph_.symbol(dim.symbol).kind);
    };
    return value.kind == ValueKind::activation && value.part_of == none &&
           computes(value.producer) && std::ranges::none_of(value.shape, routed) &&
           std::ranges::find(graph_.outputs(), id) == graph_.outputs().end() &&
           std::ranges::none_of(graph_.consumers(id),
                                [&](OpId op) { return graph_.op(op).kind == OpKind::join; });
  }

  const Graph& graph_;
  const std::span<const OpPlan> plans_;
};

}  // namespace

RecordingPlan plan_recordings(const Graph& graph, std::span<const OpPlan> plans,
                              std::span<const Step> steps) {
  const Planner planner(graph, plans);
  RecordingPlan plan{.stretches = {},
                     .stretch_of = std::vector<int>(graph.ops().size(), none),
                     .stays = std::vector<bool>(graph.values().size(), false),
                     .lent_until = std::vector<int>(graph.values().size(), none),
                     .place_of = std::vector<int>(graph.ops().size(), none)};
  std::vector<bool> awaited(graph.ops().size(), false);
  int place = 0;
  for (const Step& step : steps) {
    if (step.lane == Lane::compute) continue;
    for (OpId op : step.wait_for) awaited[op] = true;
    plan.place_of[step.op] = place++;
  }
  bool open = false;  // the last stretch can go on
  for (const Step& step : steps) {
    if (step.lane != Lane::compute) continue;
    const Op& op = graph.op(step.op);
    if (!planner.can_record(op)) {
      open = false;
      continue;
    }
    if (!open || !step.wait_for.empty()) plan.stretches.emplace_back();
    plan.stretches.back().push_back(step);
    plan.stretch_of[op.id] = static_cast<int>(plan.stretches.size()) - 1;
    open = !awaited[op.id];
    for (const auto& values : {op.inputs, op.outputs}) {
      for (ValueId id : values) plan.stays[id] = graph.value(id).kind == ValueKind::activation;
    }
  }
  for (const Value& value : graph.values()) {
    if (!plan.stays[value.id]) continue;
    for (OpId op : graph.consumers(value.id)) {
      plan.lent_until[value.id] = std::max(plan.lent_until[value.id], plan.place_of[op]);
    }
  }
  return plan;
}

}  // namespace farskip
