#include <algorithm>
#include <limits>
#include <set>
#include <tuple>

#include "farskip/schedule/schedule.h"

namespace farskip {
namespace {

// Place of an op in the released order: layer, then stage within it, then program order.
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

std::vector<Place> places_of(const Graph& graph) {
  int layers = 0;
  for (const Op& op : graph.ops()) layers = std::max(layers, op.attributes.layer);
  std::vector<Place> places(graph.ops().size());
  for (auto op = graph.ops().rbegin(); op != graph.ops().rend(); ++op) {
    const Attributes& a = op->attributes;
    const bool behind_layers = op->kind == OpKind::final_norm || op->kind == OpKind::head;
    const int layer = behind_layers ? layers + 1 : a.layer;
    Place place = {layer, stage_of(op->kind), a.micro_batch, op->id};
    if (op->kind == OpKind::unpermute) {
      place = {layer + 1, 1, a.micro_batch, op->id};
    } else if (op->kind == OpKind::sum || op->kind == OpKind::norm || op->kind == OpKind::join) {
      for (OpId reader : graph.successors(op->id)) {
        Place first = places[reader];
        std::get<3>(first) = op->id;
        place = std::min(place, first);
      }
      // A routed output is never pulled before the next layer's attention inputs.
      if (op->kind != OpKind::join) std::get<0>(place) = std::max(std::get<0>(place), layer);
    }
    places[op->id] = place;
  }
  return places;
}

}  // namespace

Schedule released_schedule(const Graph& graph) {
  const std::vector<Place> places = places_of(graph);
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
