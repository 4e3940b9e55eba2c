#pragma once

#include <vector>

#include "farskip/graph/graph.h"

namespace farskip {

// Where along a step every op stands, by OpId: at its layer 1..L in the forward pass and, behind
// the loss, at 2 (L + 1) - its layer, so that places grow as the backward pass comes down. Ops
// outside of the layers stand with what is before them in program order, at 0 where nothing is.
std::vector<int> places_along(const Graph& graph);

}  // namespace farskip
