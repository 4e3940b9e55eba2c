#pragma once

#include "farskip/graph/graph.h"

namespace farskip {

// What an op costs, from the shapes of its values at their expected sizes. Formulas and worked
// examples: docs/formulas.md.
struct OpCost {
  double flops = 0;        // a multiply-add counts as 2
  double bytes_moved = 0;  // through memory: inputs, outputs and parameters once each
  double bytes_sent = 0;   // off this rank, communication only
};
OpCost cost_of(const Graph& graph, const Op& op);

// Sums over a whole graph.
OpCost total_cost(const Graph& graph);
// Of its ops that compute again what was computed before (recompute.h).
OpCost cost_of_recomputing(const Graph& graph);

}  // namespace farskip
