#pragma once

#include <vector>

#include "farskip/graph/graph.h"
#include "farskip/io/weights.h"
#include "farskip/runtime/sizes.h"

namespace farskip {

// Puts the weights in the places of the graph's parameters (`tensors` is by ValueId): the chunk of
// the first axis that the parameter names, without copying. Throws ConfigError for a weight that is
// missing or whose shape or dtype differs from the graph's.
void bind_weights(const Graph& graph, const Sizes& sizes, const Weights& weights,
                  std::vector<at::Tensor>& tensors);

}  // namespace farskip
