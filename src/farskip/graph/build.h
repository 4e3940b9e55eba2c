#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "farskip/graph/graph.h"
#include "farskip/model/config.h"
#include "farskip/model/connectivity.h"

namespace farskip {

// How the ranks share the work.
enum class ParallelForm {
  // Tokens split over ranks, experts too: dispatch and combine are all-to-alls. A single rank has
  // neither.
  expert_all_to_all,
  // Every rank holds every token: attention and dense MLPs split by tensor parallelism, experts by
  // expert parallelism; partial outputs are joined by all-reduce.
  replicated_all_reduce,
};

// Which rows the head reads.
enum class HeadRows { all, last_of_sequence };

// What a step ends in.
enum class StepEnd {
  logits,  // "logits" [tokens or sequences, V] fp32
  loss,    // "loss" fp32 [1]: cross-entropy of this rank's labels over the label count
};

// Everything that a forward step's graph follows from. Sizes are those expected on a typical rank:
// they set costs, never structure.
struct StepSpec {
  ParallelForm form = ParallelForm::expert_all_to_all;
  int ranks = 1;                 // that share out the experts
  int data_parallel = 1;         // such sets of ranks
  double tokens = 0;             // per rank
  double sequences = 1;          // per rank
  double context = 0;            // mean sequence length; 0: tokens / sequences
  DType dtype = DType::float32;  // of the residual stream, activations and weights
  DType wire = DType::float32;   // of dispatched rows: dtype, or float8_e4m3 (combine: dtype)
  DispatchForm dispatch = DispatchForm::per_expert;
  RoutingMode routing = RoutingMode::model;
  double imbalance = 1.0;  // most loaded rank over the mean; scales received rows
  HeadRows head = HeadRows::all;
  StepEnd end = StepEnd::logits;
  // Of a step that ends in a loss: an output more, and losses that differentiate adds to it.
  bool expert_loads = false;  // implied by a balance loss
  RouterLosses router_losses;
};

// The forward step of one rank. Symbol 0.. hold the batch (see Symbol). Inputs are the values
// "input_ids" and "positions" [tokens] int64; the output is what the step ends in. For a loss,
// inputs are also "labels" [tokens] int64, the token that should follow each, -100 for none, and
// "label_count" fp32 [1], of all ranks: so the ranks' losses add up to the mean over all labels.
// Outputs have the names of step_outputs.h. Throws GraphError (ranks < 1, experts < ranks,
// connectivity for another model, a wire that is neither dtype nor float8_e4m3, a loss of anything
// but all rows).
Graph build_forward(const ModelConfig& model, const Connectivity& connectivity,
                    const StepSpec& spec);

}  // namespace farskip
