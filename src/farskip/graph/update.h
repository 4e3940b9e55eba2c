#pragma once

#include <span>
#include <string>
#include <vector>

#include "farskip/graph/graph.h"

namespace farskip {

// Parameters whose gradients are reduced together, and which are updated together: each one whole.
struct ParameterBucket {
  std::vector<std::string> names;  // canonical, in the order in which they lie in the bucket
  bool of_experts = false;         // each rank has its own; else all ranks have the same
};

// Buckets for a backward step: parameters in the order in which their gradients are complete, so
// that reduction can start while the backward pass goes on, gathered until a bucket holds `bytes`
// bytes of gradients (at least one parameter each). Those of experts have buckets of their own.
// The same on every rank. Parameters without a gradient are in none.
std::vector<ParameterBucket> plan_buckets(const Graph& backward, double bytes);

// The step with its update, on `ranks` ranks: as many as share out the experts, or a multiple, so
// that several have the same ones (expert parallelism times data parallelism). Gradients of what
// all ranks have are reduced over all, each rank getting an even part of every bucket, padded;
// those of experts over the ranks that have the same ones. The squares of all gradients are summed,
// of a stage's graph over all `stages`; each rank updates its part, and the parts are gathered.
// Outputs (step_outputs.h): those of the step, then the sum of squares. `buckets` must name every
// parameter that has a gradient, once.
// Throws GraphError if they do not, for a graph without gradients, and for a number of ranks that
// is no multiple.
Graph add_update(const Graph& backward, std::span<const ParameterBucket> buckets, int ranks,
                 int stages = 1);

}  // namespace farskip
