#pragma once

#include <vector>

#include "farskip/graph/graph.h"
#include "farskip/io/weights.h"
#include "farskip/runtime/sizes.h"

namespace farskip {

// Puts the weights in the places of the graph's parameters, or their gradients in the places of its
// gradients, whichever `kind` says (`tensors` is by ValueId): the chunk of the first axis that the
// value names, without copying. Throws ConfigError for one that is missing or whose shape or dtype
// differs from the graph's.
void bind_weights(const Graph& graph, ValueKind kind, const Sizes& sizes, const Weights& weights,
                  std::vector<at::Tensor>& tensors);

}  // namespace farskip
