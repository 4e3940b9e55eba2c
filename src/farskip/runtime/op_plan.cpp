#include "farskip/runtime/op_plan.h"

#include "farskip/runtime/dtypes.h"

namespace farskip {
namespace {

OutputPlan plan_output(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  OutputPlan plan{.value = id, .type = scalar_type_of(value.dtype), .shape = &value.shape};
  if (value.part_of == none) return plan;
  const Value& whole = graph.value(value.part_of);
  plan.whole = whole.id;
  plan.whole_type = scalar_type_of(whole.dtype);
  plan.whole_shape = &whole.shape;
  for (ValueId earlier : graph.op(whole.producer).inputs) {
    if (earlier == id) break;
    plan.before.push_back(graph.value(earlier).shape.at(0));
  }
  return plan;
}

// A piece reads the rows that it writes: of every input with as many rows as its outputs' whole.
void plan_piece(const Graph& graph, OpPlan& plan) {
  const bool whole = plan.op->attributes.pieces == 1 || plan.op->kind == OpKind::join;
  if (whole || plan.op->outputs.empty()) return;
  const SymbolId part = graph.value(plan.op->outputs.at(0)).shape.at(0).symbol;
  if (part == none || graph.symbol(part).kind != Symbol::Kind::part) return;
  plan.piece = part;
  plan.by_sequences = graph.symbol(part).by_sequences;
  for (InputPlan& input : plan.inputs) {
    const Value& value = graph.value(input.value);
    input.cut = value.kind == ValueKind::activation && !value.shape.empty() &&
                value.shape[0].symbol == graph.symbol(part).whole;
  }
}

}  // namespace

std::vector<OpPlan> plan_ops(const Graph& graph, const KernelTable& kernels) {
  std::vector<OpPlan> plans;
  std::vector<bool> holds(graph.values().size(), false);  // by gradient
  for (const Op& op : graph.ops()) {
    OpPlan plan{.op = &op, .entry = &kernels.find(op)};
    for (ValueId id : op.inputs) plan.inputs.push_back({.value = id});
    if (op.kind != OpKind::join) {
      for (ValueId id : op.outputs) plan.outputs.push_back(plan_output(graph, id));
    }
    for (ValueId id : op.accumulates) {
      plan.gradients.push_back({.value = id, .adds = holds[id]});
      holds[id] = true;
    }
    plan_piece(graph, plan);
    for (OpId before : graph.predecessors(op.id)) {
      if (graph.op(before).host_waits) plan.sizes_from.push_back(before);
    }
    plans.push_back(std::move(plan));
  }
  for (size_t s = 0; s < graph.symbols().size(); ++s) {
    const SymbolId symbol = static_cast<SymbolId>(s);
    if (graph.binder(symbol) != none) plans[graph.binder(symbol)].binds.push_back(symbol);
  }
  return plans;
}

}  // namespace farskip
