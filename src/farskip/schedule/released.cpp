#include <algorithm>
#include <ranges>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "farskip/graph/differentiate.h"
#include "farskip/schedule/places.h"
#include "farskip/schedule/schedule.h"

namespace farskip {
namespace {

// Place of an op in the released order: layer, counted on behind the loss as in places.h; stage
// within it; micro-batch; program order.
using Place = std::tuple<int, int, int, OpId>;

// Sums, norms and joins go where their first reader is; the routed output of a layer is gathered
// when the next layer's router is about to need it.
int stage_of(OpKind kind) {
  switch (kind) {
    case OpKind::embedding:
    case OpKind::rope_tables:
    case OpKind::attention_prepare:
      return 0;
    case OpKind::router:
    case OpKind::plan:
    case OpKind::counts:
    case OpKind::permute:
    case OpKind::dispatch:
      return 2;
    case OpKind::attention_core:
    case OpKind::output_projection:
      return 3;
    case OpKind::arrange:
    case OpKind::experts:
    case OpKind::weigh:
    case OpKind::combine:
    case OpKind::all_reduce:
      return 4;
    case OpKind::shared_experts:
    case OpKind::dense_mlp:
      return 5;
    default:
      return 6;
  }
}

// The forward stages from the last to the first: a collective's gradient is launched where the
// forward pass waits for that collective, and waited for where that is launched.
int stage_behind_loss(OpKind kind) {
  switch (kind) {
    case OpKind::mlp_gradient:
      return 1;
    case OpKind::experts_gradient:
    case OpKind::dispatch_gradient:
      return 2;
    case OpKind::linear_gradient:
    case OpKind::attention_core_gradient:
      return 3;
    case OpKind::permute_gradient:
    case OpKind::router_gradient:
    case OpKind::router_loss:
      return 4;
    default:
      return 6;
  }
}

// The first ops of a routed output's gradient.
bool begins_routed_gradient(OpKind kind) {
  return kind == OpKind::unpermute_gradient || kind == OpKind::routing_weights_gradient ||
         kind == OpKind::combine_gradient;
}

bool goes_where_it_is_read(const Op& op) {
  return op.kind == OpKind::sum || op.kind == OpKind::norm || op.kind == OpKind::sum_norm ||
         op.kind == OpKind::join || op.kind == OpKind::norm_gradient || op.attributes.again;
}

class Places {
 public:
  explicit Places(const Graph& graph)
      : graph_(graph),
        forward_end_(last_forward_op(graph)),
        along_(places_along(graph)),
        places_(graph.ops().size()) {
    for (const Op& op : graph.ops()) layers_ = std::max(layers_, op.attributes.layer);
  }

  std::vector<Place> find() {
    for (const Op& op : graph_.ops() | std::views::reverse) places_[op.id] = place_of(op);
    // Weight gradients are computed with the gradient in front of them, as autograd does.
    for (const Op& op : graph_.ops()) {
      if (op.accumulates.empty() || op.id == 0) continue;
      const auto [layer, stage, micro_batch, id] = places_[op.id - 1];
      places_[op.id] = {layer, stage, op.attributes.micro_batch, op.id};
    }
    return std::move(places_);
  }

 private:
  Place place_of(const Op& op) const {
    const bool forward = op.id <= forward_end_;
    const int micro_batch = op.attributes.micro_batch, layer = layer_of(op);
    if (op.kind == OpKind::unpermute) return {layer + 1, 1, micro_batch, op.id};
    if (begins_routed_gradient(op.kind)) return {layer - 1, 5, micro_batch, op.id};
    Place place = {layer, forward ? stage_of(op.kind) : stage_behind_loss(op.kind), micro_batch,
                   op.id};
    if (!goes_where_it_is_read(op)) return place;
    for (OpId reader : graph_.successors(op.id)) {
      Place first = places_[reader];
      std::get<3>(first) = op.id;
      place = std::min(place, first);
    }
    // A routed output is never pulled before the next layer's attention inputs.
    if (op.kind != OpKind::join) std::get<0>(place) = std::max(std::get<0>(place), layer);
    return place;
  }

  int layer_of(const Op& op) const {
    if (op.kind == OpKind::final_norm || op.kind == OpKind::head) return layers_ + 1;
    // Gradients are reduced as soon as they are there.
    return op.kind == OpKind::reduce_gradients ? 0 : along_[op.id];
  }

  const Graph& graph_;
  const OpId forward_end_;
  const std::vector<int> along_;
  std::vector<Place> places_;
  int layers_ = 0;
};

}  // namespace

Schedule released_schedule(const Graph& graph) {
  const std::vector<Place> places = Places(graph).find();
  std::vector<size_t> open(graph.ops().size());
  std::set<Place> ready;
  for (const Op& op : graph.ops()) {
    open[op.id] = graph.predecessors(op.id).size();
    if (open[op.id] == 0) ready.insert(places[op.id]);
  }
  std::vector<OpId> order;
  while (!ready.empty()) {
    const OpId next = std::get<3>(*ready.begin());
    ready.erase(ready.begin());
    order.push_back(next);
    for (OpId id : graph.successors(next)) {
      if (--open[id] == 0) ready.insert(places[id]);
    }
  }
  return schedule_from_order(graph, "released", order);
}

}  // namespace farskip
