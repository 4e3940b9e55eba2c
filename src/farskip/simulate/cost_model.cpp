#include "farskip/simulate/cost_model.h"

#include <algorithm>

#include "farskip/graph/cost.h"
#include "farskip/simulate/collectives.h"

namespace farskip {
namespace {

double rate_of(const Op& op, const HardwareProfile& hardware, const Graph& graph,
               const CostOptions& options) {
  if (op.kind == OpKind::experts || op.kind == OpKind::experts_gradient ||
      op.kind == OpKind::experts_weight_gradient || op.kind == OpKind::experts_products) {
    return hardware.grouped_gemm_rate(options.gemm);
  }
  if (op.kind == OpKind::attention_core || op.kind == OpKind::attention_core_gradient) {
    return hardware.attention_rate(graph.value(op.outputs.at(0)).dtype);
  }
  return hardware.gemm_rate(options.gemm);
}

// Kernels behind an op, as good implementations have them: each takes a launch, or ramps up and
// down, whatever its size.
int kernels_of(OpKind kind) {
  switch (kind) {
    case OpKind::attention_prepare:
    case OpKind::attention_prepare_gradient:
    case OpKind::attention_prepare_weight_gradient:
      return 5;
    case OpKind::experts:
    case OpKind::shared_experts:
    case OpKind::dense_mlp:
    case OpKind::router:
    case OpKind::router_loss:
    case OpKind::experts_gradient:
    case OpKind::mlp_gradient:
      return 3;
    case OpKind::plan:
    case OpKind::experts_weight_gradient:
    case OpKind::router_gradient:
      return 2;
    default:
      return 1;
  }
}

double compute_seconds(const Graph& graph, const Op& op, const HardwareProfile& hardware,
                       const CostOptions& options) {
  const OpCost cost = cost_of(graph, op);
  double seconds = 0;
  if (cost.flops > 0) {
    seconds = std::max(seconds, cost.flops / rate_of(op, hardware, graph, options));
  }
  if (hardware.memory_bandwidth.value > 0) {
    seconds = std::max(seconds, cost.bytes_moved / hardware.memory_bandwidth.value);
  }
  return seconds + kernels_of(op.kind) * hardware.kernel_launch.value;
}

// Bytes through both networks for the rows that this dispatch or combine moves.
TwoLevel exchanged_bytes(const Graph& graph, const Op& op, const HardwareProfile& hardware) {
  const Attributes& a = op.attributes;
  const Value& rows = graph.value(op.outputs.at(0));
  const bool limited = a.routing == RoutingMode::model && a.groups > 1;
  const MoeTraffic token =
      moe_traffic({.hidden = static_cast<int64_t>(graph.expected(rows.shape.back())),
                   .experts = a.experts,
                   .top_k = a.top_k,
                   .groups = limited ? a.groups : 1,
                   .kept_groups = limited ? a.kept_groups : 1,
                   .form = a.dispatch,
                   .dispatch_wire = rows.dtype,
                   .combine_wire = rows.dtype},
                  layout_over_domains(hardware, a.ranks));
  const double tokens = graph.expected(rows.shape.at(0)) / token.copies;
  return (goes_to_experts(op.kind) ? token.dispatch : token.combine) * tokens;
}

double communication_seconds(const Graph& graph, const Op& op, const HardwareProfile& hardware) {
  if (op.kind == OpKind::receive) return 0;  // its sender's time
  if (op.kind == OpKind::send) {
    return message_seconds(hardware, graph.expected_bytes(op.inputs.at(0)));
  }
  if (is_between_stages(op.attributes)) {  // a few bytes, from stage to stage and back
    return 2 * (op.attributes.stages - 1) *
           message_seconds(hardware, graph.expected_bytes(op.outputs.at(0)));
  }
  const int ranks = op.attributes.ranks;
  if (ranks == 1) return 0;
  if (goes_to_experts(op.kind)) {
    return dispatch_seconds(hardware, ranks, exchanged_bytes(graph, op, hardware));
  }
  if (comes_home(op.kind)) {
    return combine_seconds(hardware, ranks, exchanged_bytes(graph, op, hardware));
  }
  if (op.kind == OpKind::reduce_gradients) {
    return reduce_scatter_seconds(hardware, ranks, graph.expected_bytes(op.outputs.at(0)) * ranks);
  }
  if (op.kind == OpKind::gather_parameters || op.kind == OpKind::spread_parameters) {
    return all_gather_seconds(hardware, ranks, graph.expected_bytes(op.inputs.at(0)) * ranks);
  }
  const double bytes = graph.expected_bytes(op.outputs.at(0));
  return op.kind == OpKind::all_reduce ? all_reduce_seconds(hardware, ranks, bytes)
                                       : all_to_all_seconds(hardware, ranks, bytes);
}

}  // namespace

Durations roofline_durations(const Graph& graph, const HardwareProfile& hardware,
                             const CostOptions& options) {
  Durations durations(graph.ops().size(), 0);
  for (const Op& op : graph.ops()) {
    if (op.kind == OpKind::join) continue;
    durations[op.id] = op.lane == Lane::communication
                           ? communication_seconds(graph, op, hardware)
                           : compute_seconds(graph, op, hardware, options);
  }
  return durations;
}

Contention contention_of(const HardwareProfile& hardware) {
  return {.compute = std::max(1.0, hardware.contention_slowdown.value)};
}

HostModel host_of(const HardwareProfile& hardware) {
  // A profile without kernel launches is a CPU, whose ranks compute on the host thread.
  return {.computes = hardware.kernel_launch.value <= 0};
}

}  // namespace farskip
