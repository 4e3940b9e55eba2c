#pragma once

#include <optional>
#include <string>
#include <vector>

#include "farskip/graph/build.h"
#include "farskip/graph/recompute.h"
#include "farskip/schedule/schedule.h"
#include "farskip/simulate/cost_model.h"
#include "farskip/simulate/hardware.h"
#include "farskip/trace/metrics.h"
#include "farskip/trace/timeline.h"

namespace farskip {

// One way to run a step: what is compared.
struct Variant {
  std::string connectivity = "standard";  // preset name or JSON file
  std::string schedule = "overlapped";    // blocking, released or overlapped
  bool two_batch = false;
  int expert_chunks = 1, pieces = 1;
  RecomputeKind recompute = RecomputeKind::none;  // of training steps
  std::string label() const;     // e.g. "farskip, chunks 4, recompute all, overlapped"
  std::string rewrites() const;  // e.g. "chunks 4, pieces 2"; "-" if there are none
  // Changes nothing about the function but rounding: a peer of standard + blocking.
  bool is_standard() const { return connectivity == "standard"; }
  bool operator==(const Variant&) const = default;
};

// What a training step does besides the forward pass: backward, reduction of gradients over the
// ranks, update; of several micro-batches, each of the step's tokens, and in pipeline stages, each
// on as many ranks.
struct TrainingSpec {
  double bucket_bytes = 64 << 20;  // gradients that are reduced at once
  DType gradients = DType::float32;
  int micro_batches = 1, stages = 1;
};

// Graphs of a variant, one for each stage: build, then rewrites in their order; the replicated form
// merges reductions. With `training` the step is one of training, whatever the spec says of its
// end. Throws GraphError, UnsupportedError; UsageError for stages that do not fit the layers.
std::vector<Graph> build_variant(const ModelConfig& model, const Variant& variant,
                                 const StepSpec& spec,
                                 const std::optional<TrainingSpec>& training = {});

struct PlanRequest {
  ModelConfig model;
  HardwareProfile hardware;
  std::vector<StepSpec> steps;  // one a group of rows: sizes, ranks
  std::vector<Variant> variants;
  CostOptions costs;
  std::optional<TrainingSpec> training = {};  // steps of training, else forward steps
  bool keep_timelines = false;
};

// One simulated row. Seconds. Of several stages: the step is over when the last of them is done;
// all else is that of the stage whose bound is the longest, memory that of the stage which takes
// most.
struct PlanRow {
  StepSpec step;
  Variant variant;
  OverlapMetrics metrics;
  LowerBound bound;
  double tokens_per_second = 0;      // of one rank, of all stages
  double speedup = 0;                // over standard + blocking of the same step
  double speedup_over_standard = 0;  // over the fastest standard variant of the same step
  double parameter_bytes = 0, peak_activation_bytes = 0;
  // Of training steps. Percent of the time of dispatches, combines and their gradients that lies
  // beside computation, in the forward pass and behind the loss; how much longer the step is than
  // the same one without recomputation, over that one, where that is among the rows.
  std::optional<double> forward_overlap, backward_overlap, recompute_cost;
  Timeline timeline;  // if asked for
};

// Simulates every variant for every step, on all cores. Standard + blocking is simulated as the
// base even where it is not asked for. Rows in order of steps, then variants. Variants that a model
// or size does not allow (more chunks than experts a rank) are left out. Throws ConfigError,
// GraphError, UnsupportedError for training in a form that has no backward. Two micro-batches
// interleaved (two-batch) are left out with several stages or micro-batches.
std::vector<PlanRow> make_plan(const PlanRequest& request);

// The variants that `farskip plan` compares when none are named: standard blocking, two-batch and
// chunks; then for each connectivity plain, with pieces and with chunks.
std::vector<Variant> default_variants(const std::vector<std::string>& connectivities, int chunks,
                                      int pieces);
// The same for training steps: standard blocking, two-batch and chunks; then for each connectivity
// the released order, plain and with chunks; the overlapped ones for every kind of recomputation.
std::vector<Variant> default_training_variants(const std::vector<std::string>& connectivities,
                                               int chunks, int pieces,
                                               const std::vector<RecomputeKind>& kinds);

}  // namespace farskip
