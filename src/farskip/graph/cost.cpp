#include "farskip/graph/cost.h"

#include <algorithm>

namespace farskip {
namespace {

double rows_of(const Graph& graph, ValueId id) {
  return graph.expected(graph.value(id).shape.at(0));
}

// Elements of an op's parameters that are matrices; a stack of expert matrices counts one expert.
double matrix_elements(const Graph& graph, const Op& op) {
  double total = 0;
  for (ValueId id : op.inputs) {
    const Value& value = graph.value(id);
    if (value.kind != ValueKind::parameter || value.shape.size() < 2) continue;
    const double elements = graph.expected_elements(id);
    total += value.shape.size() == 3 ? elements / graph.expected(value.shape[0]) : elements;
  }
  return total;
}

// Softmax over the keys is not counted: formulas.md counts the two matrix products.
double attention_flops(const Graph& graph, const Op& op) {
  const Attributes& a = op.attributes;
  const double per_token = 2.0 * a.heads * (a.qk_head_dim + a.value_head_dim) * (a.context / 2.0);
  return rows_of(graph, op.outputs.at(0)) * per_token;
}

double flops_of(const Graph& graph, const Op& op) {
  switch (op.kind) {
    case OpKind::attention_prepare:
    case OpKind::output_projection:
    case OpKind::router:
    case OpKind::shared_experts:
    case OpKind::dense_mlp:
    case OpKind::head:
      return 2.0 * rows_of(graph, op.outputs.at(0)) * matrix_elements(graph, op);
    case OpKind::experts: {
      const double expert_rows = rows_of(graph, op.outputs.at(0)) * op.attributes.experts_per_row;
      return 2.0 * expert_rows * matrix_elements(graph, op);
    }
    case OpKind::attention_core:
      return attention_flops(graph, op);
    default:
      return 0;
  }
}

double row_bytes_on_wire(const Graph& graph, const Op& op) {
  const Value& rows = graph.value(op.outputs.at(0));
  const double width = graph.expected(rows.shape.back());
  if (op.kind == OpKind::dispatch && op.attributes.wire == DType::float8_e4m3) {
    return width + 4.0 * width / 128.0;  // one fp32 scale per 128 values
  }
  const DType dtype = op.kind == OpKind::dispatch ? op.attributes.wire : rows.dtype;
  return width * static_cast<double>(bytes_of(dtype));
}

double sent_bytes(const Graph& graph, const Op& op) {
  const double ranks = op.attributes.ranks;
  const double off_rank = (ranks - 1.0) / ranks;
  switch (op.kind) {
    case OpKind::counts:
      return graph.expected_bytes(op.inputs.at(0)) * off_rank;
    case OpKind::dispatch:
      // What leaves this rank equals, on average, what arrives.
      return rows_of(graph, op.outputs.at(0)) * row_bytes_on_wire(graph, op) * off_rank;
    case OpKind::combine:
      return rows_of(graph, op.outputs.at(0)) * row_bytes_on_wire(graph, op) * off_rank;
    case OpKind::all_reduce:
      return graph.expected_bytes(op.outputs.at(0)) * 2.0 * off_rank;  // ring
    default:
      return 0;
  }
}

}  // namespace

OpCost cost_of(const Graph& graph, const Op& op) {
  OpCost cost;
  if (op.kind == OpKind::join) return cost;
  cost.flops = flops_of(graph, op);
  for (ValueId id : op.inputs) {
    // An embedding reads as many rows of its table as there are tokens.
    const bool table = op.kind == OpKind::embedding && graph.value(id).kind == ValueKind::parameter;
    cost.bytes_moved += table ? graph.expected_bytes(op.outputs.at(0)) : graph.expected_bytes(id);
  }
  for (ValueId id : op.outputs) cost.bytes_moved += graph.expected_bytes(id);
  cost.bytes_sent = sent_bytes(graph, op);
  return cost;
}

OpCost total_cost(const Graph& graph) {
  OpCost total;
  for (const Op& op : graph.ops()) {
    const OpCost cost = cost_of(graph, op);
    total.flops += cost.flops;
    total.bytes_moved += cost.bytes_moved;
    total.bytes_sent += cost.bytes_sent;
  }
  return total;
}

}  // namespace farskip
