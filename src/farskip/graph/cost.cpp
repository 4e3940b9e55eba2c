#include "farskip/graph/cost.h"

#include <algorithm>
#include <span>

#include "farskip/model/routing_statistics.h"

namespace farskip {
namespace {

double rows_of(const Graph& graph, ValueId id) {
  return graph.expected(graph.value(id).shape.at(0));
}

// Elements of the matrices among an op's parameters, or among the gradients that it adds to; a
// stack of expert matrices counts one expert.
double matrix_elements(const Graph& graph, std::span<const ValueId> ids) {
  double total = 0;
  for (ValueId id : ids) {
    const Value& value = graph.value(id);
    if (value.kind == ValueKind::activation || value.shape.size() < 2) continue;
    const double elements = graph.expected_elements(id);
    total += value.shape.size() == 3 ? elements / graph.expected(value.shape[0]) : elements;
  }
  return total;
}

// Softmax over the keys is not counted: formulas.md counts the matrix products, two forward and
// five backward, which computes the scores again.
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
    case OpKind::experts:
    case OpKind::shared_experts:
    case OpKind::dense_mlp:
    case OpKind::head:
    case OpKind::linear_gradient:
    case OpKind::attention_prepare_gradient:
    case OpKind::mlp_gradient:
    case OpKind::experts_gradient:
    case OpKind::router_gradient:
    case OpKind::mlp_products:
    case OpKind::experts_products:
      return 2.0 * rows_of(graph, op.outputs.at(0)) * matrix_elements(graph, op.inputs);
    case OpKind::linear_weight_gradient:
    case OpKind::attention_prepare_weight_gradient:
    case OpKind::experts_weight_gradient:
      return 2.0 * rows_of(graph, op.inputs.at(0)) * matrix_elements(graph, op.accumulates);
    case OpKind::attention_core:
      return attention_flops(graph, op);
    case OpKind::attention_core_gradient:
      return 2.5 * attention_flops(graph, op);
    default:
      return 0;
  }
}

double sent_bytes(const Graph& graph, const Op& op) {
  const double ranks =
      is_between_stages(op.attributes) ? op.attributes.stages : op.attributes.ranks;
  const double off_rank = (ranks - 1.0) / ranks;
  if (goes_to_experts(op.kind) || comes_home(op.kind)) {
    // What leaves this rank equals, on average, what arrives.
    return graph.expected_bytes(op.outputs.at(0)) * off_rank;
  }
  if (op.kind == OpKind::counts) return graph.expected_bytes(op.inputs.at(0)) * off_rank;
  if (op.kind == OpKind::exchange_gradients) {  // all of it but one's own part
    return graph.expected_bytes(op.outputs.at(0));
  }
  if (op.kind == OpKind::reduce_gradients) {  // a rank keeps one part of what it has
    return graph.expected_bytes(op.outputs.at(0)) * (ranks - 1.0);
  }
  if (op.kind == OpKind::gather_parameters || op.kind == OpKind::spread_parameters) {
    return graph.expected_bytes(op.inputs.at(0)) * (ranks - 1.0);
  }
  if (op.kind == OpKind::send) return graph.expected_bytes(op.inputs.at(0));
  if (op.kind == OpKind::all_reduce) {
    return graph.expected_bytes(op.outputs.at(0)) * 2.0 * off_rank;  // ring
  }
  return 0;
}

// Bytes of the last `count` inputs of an op.
double bytes_of_last(const Graph& graph, const Op& op, size_t count) {
  double bytes = 0;
  for (size_t i = op.inputs.size() - count; i < op.inputs.size(); ++i) {
    bytes += graph.expected_bytes(op.inputs[i]);
  }
  return bytes;
}

// Most ops read their inputs once. Chunks of a per-rank step read, of what came before them, only
// rows that they need.
double bytes_read(const Graph& graph, const Op& op) {
  const Attributes& a = op.attributes;
  const ValueId last = op.inputs.empty() ? none : op.inputs.back();
  const size_t so_far = static_cast<size_t>(a.chunk) + 1;
  if (op.kind == OpKind::embedding) {  // as many rows of its table as there are tokens
    return graph.expected_bytes(op.inputs.at(0)) + graph.expected_bytes(op.outputs.at(0));
  }
  if (op.kind == OpKind::arrange && a.dispatch == DispatchForm::per_rank) {
    const double packet = graph.expected(graph.value(last).shape.back());
    return std::min(bytes_of_last(graph, op, so_far), rows_of(graph, op.outputs.at(0)) * packet);
  }
  // Three numbers of state and a parameter for each element, the state written too.
  if (op.kind == OpKind::update) return bytes_of_last(graph, op, op.inputs.size()) * 7.5;
  if (op.kind == OpKind::weigh) {  // all expert rows, over all chunks
    const double share =
        share_first_reached(a.experts, a.top_k, a.ranks, a.chunks - 1 - a.chunk, a.chunks);
    return graph.expected_bytes(last) * a.chunks * share;
  }
  return bytes_of_last(graph, op, op.inputs.size());
}

}  // namespace

OpCost cost_of(const Graph& graph, const Op& op) {
  OpCost cost;
  if (op.kind == OpKind::join) return cost;
  cost.flops = flops_of(graph, op);
  cost.bytes_moved = bytes_read(graph, op);
  for (ValueId id : op.outputs) cost.bytes_moved += graph.expected_bytes(id);
  for (ValueId id : op.accumulates) cost.bytes_moved += graph.expected_bytes(id);
  cost.bytes_sent = sent_bytes(graph, op);
  return cost;
}

namespace {

template <typename Counts>
OpCost sum_of_costs(const Graph& graph, Counts counts) {
  OpCost total;
  for (const Op& op : graph.ops()) {
    if (!counts(op)) continue;
    const OpCost cost = cost_of(graph, op);
    total.flops += cost.flops;
    total.bytes_moved += cost.bytes_moved;
    total.bytes_sent += cost.bytes_sent;
  }
  return total;
}

}  // namespace

OpCost total_cost(const Graph& graph) {
  return sum_of_costs(graph, [](const Op&) { return true; });
}

OpCost cost_of_recomputing(const Graph& graph) {
  return sum_of_costs(graph, [](const Op& op) { return op.attributes.again; });
}

}  // namespace farskip
