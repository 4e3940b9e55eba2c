#include "farskip/schedule/places.h"

#include <algorithm>

#include "farskip/graph/differentiate.h"

namespace farskip {

std::vector<int> places_along(const Graph& graph) {
  int layers = 0;
  for (const Op& op : graph.ops()) layers = std::max(layers, op.attributes.layer);
  const OpId forward_end = last_forward_op(graph);
  std::vector<int> places;
  for (const Op& op : graph.ops()) {
    const int layer = op.attributes.layer;
    if (layer == 0) {
      places.push_back(places.empty() ? 0 : places.back());
    } else {
      places.push_back(op.id <= forward_end ? layer : 2 * (layers + 1) - layer);
    }
  }
  return places;
}

}  // namespace farskip
