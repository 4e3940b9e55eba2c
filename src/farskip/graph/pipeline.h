#pragma once

#include <span>
#include <vector>

#include "farskip/graph/graph.h"

namespace farskip {

// The stage of every layer, layers 1..L in order: contiguous runs, as even as can be. Throws
// UsageError for fewer stages than one, or more than there are layers.
std::vector<int> even_stages(int layers, int stages);

// A step cut into pipeline stages: one graph for each stage, which holds that stage's part of
// `micro_batches` micro-batches of the step in 1F1B order. `stage_of_layer` as of even_stages. The
// same for every connectivity: docs/pipeline.md says which values cross a cut, and why bits stay.
//
// A value that a later or earlier stage reads is sent when it is made and passed on from stage to
// stage: attributes of send and receive name the other stage, and a message number that is the
// same at both ends. Sums over terms of several stages are summed on the way. Outputs
// (step_outputs.h) are those of the step, once for each micro-batch, on the stages that have them:
// losses on the last, router losses on the first, expert loads of its own routers on each.
//
// `step`: with a backward pass or without. Throws GraphError for one that has micro-batches
// already; UnsupportedError for a parameter that several stages train (tied embeddings).
std::vector<Graph> pipeline_stages(const Graph& step, std::span<const int> stage_of_layer,
                                   int micro_batches);

// One part of one micro-batch on one stage.
struct PipelinePhase {
  int micro_batch = 0;
  bool backward = false;
  bool operator==(const PipelinePhase&) const = default;
};
// 1F1B: the phases of stage `stage` in their order. As many forward parts as there are stages
// behind it, then one forward and one backward part in turn. Forward parts alone for a step without
// a backward pass.
std::vector<PipelinePhase> pipeline_phases(int stage, int stages, int micro_batches, bool backward);

}  // namespace farskip
