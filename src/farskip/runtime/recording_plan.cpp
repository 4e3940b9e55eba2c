#include "farskip/runtime/recording_plan.h"

#include <algorithm>

#include "farskip/runtime/row_capacity.h"

namespace farskip {
namespace {

class Planner {
 public:
  Planner(const Graph& graph, std::span<const OpPlan> plans) : graph_(graph), plans_(plans) {}

  bool can_record(const Op& op) const {
    const OpPlan& plan = plans_[op.id];
    const bool fits = computes(op.id) && plan.entry->recordable != nullptr && plan.piece == none &&
                      plan.gradients.empty() && !op.host_waits && !op.outputs.empty() &&
                      plan.entry->recordable(op, plan.outputs[0].type);
    const bool spare = plan.entry->takes_spare_rows;
    auto input_stays = [&](ValueId id) {
      return graph_.value(id).kind == ValueKind::parameter ||
             (can_stay(id, spare) && (arrives(id) || is_made(id)));
    };
    auto output_stays = [&](ValueId id) { return can_stay(id, spare); };
    return fits && std::ranges::all_of(op.inputs, input_stays) &&
           std::ranges::all_of(op.outputs, output_stays);
  }

  // Collectives bring it, or all of its parts.
  bool arrives(ValueId id) const {
    const OpId producer = graph_.value(id).producer;
    if (producer == none || is_kept_for_backward(id)) return false;
    const Op& op = graph_.op(producer);
    return op.kind == OpKind::join
               ? std::ranges::all_of(op.inputs, [&](ValueId part) { return is_brought(part); })
               : is_brought(id);
  }

  void add_routed(ValueId id, std::vector<SymbolId>& symbols) const {
    for (const Dim& dim : graph_.value(id).shape) {
      if (!is_routed(graph_, dim) || std::ranges::count(symbols, dim.symbol) > 0) continue;
      symbols.push_back(dim.symbol);
    }
  }

 private:
  bool computes(OpId op) const {
    return graph_.op(op).lane == Lane::compute && graph_.op(op).kind != OpKind::join;
  }

  bool is_brought(ValueId id) const {
    const OpId producer = graph_.value(id).producer;
    return producer != none && graph_.op(producer).lane == Lane::communication &&
           !is_between_stages(graph_.op(producer).attributes);
  }

  // What waits so long would hold its place, and the spare room, all the while.
  bool is_kept_for_backward(ValueId id) const {
    return !is_backward(graph_.op(graph_.value(id).producer).kind) &&
           std::ranges::any_of(graph_.consumers(id),
                               [&](OpId op) { return is_backward(graph_.op(op).kind); });
  }

  // By the compute lane; with spare rows only by an op that is recorded too.
  bool is_made(ValueId id) const {
    const OpId producer = graph_.value(id).producer;
    return producer != none && computes(producer) &&
           (std::ranges::none_of(graph_.value(id).shape,
                                 [&](const Dim& dim) { return is_routed(graph_, dim); }) ||
            can_record(graph_.op(producer)));
  }

  // No part of another value, nor joined with others. `spare`: with as many rows as routing says.
  bool can_stay(ValueId id, bool spare) const {
    const Value& value = graph_.value(id);
    bool fits = value.kind == ValueKind::activation && value.part_of == none;
    for (size_t i = 0; fits && i < value.shape.size(); ++i) {
      fits = !is_routed(graph_, value.shape[i]) || (spare && i == 0 && !is_kept_for_backward(id));
    }
    return fits && std::ranges::find(graph_.outputs(), id) == graph_.outputs().end() &&
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
                     .routed = {},
                     .arrivals = {},
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
  std::vector<ValueId> arriving;
  bool open = false;  // the last stretch can go on
  for (const Step& step : steps) {
    if (step.lane != Lane::compute) continue;
    const Op& op = graph.op(step.op);
    if (!planner.can_record(op)) {
      open = false;
      continue;
    }
    if (!open || !step.wait_for.empty() || !plans[op.id].sizes_from.empty()) {
      plan.stretches.emplace_back();
      plan.routed.emplace_back();
    }
    plan.stretches.back().push_back(step);
    plan.stretch_of[op.id] = static_cast<int>(plan.stretches.size()) - 1;
    open = !awaited[op.id];
    for (const auto& values : {op.inputs, op.outputs}) {
      for (ValueId id : values) {
        if (graph.value(id).kind != ValueKind::activation) continue;
        if (!plan.stays[id] && planner.arrives(id)) arriving.push_back(id);
        plan.stays[id] = true;
        planner.add_routed(id, plan.routed.back());
      }
    }
  }
  plan.arrivals = plan_arrivals(graph, steps, arriving);
  for (const Value& value : graph.values()) {
    if (!plan.stays[value.id]) continue;
    for (OpId op : graph.consumers(value.id)) {
      plan.lent_until[value.id] = std::max(plan.lent_until[value.id], plan.place_of[op]);
    }
  }
  return plan;
}

}  // namespace farskip
