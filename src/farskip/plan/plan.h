#pragma once

#include <string>
#include <vector>

#include "farskip/graph/build.h"
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
  std::string label() const;     // e.g. "farskip, chunks 4, overlapped"
  std::string rewrites() const;  // e.g. "chunks 4, pieces 2"; "-" if there are none
  // Changes nothing about the function but rounding: a peer of standard + blocking.
  bool is_standard() const { return connectivity == "standard"; }
};

// Graph of a variant: build, then rewrites in their order; the replicated form merges reductions.
Graph build_variant(const ModelConfig& model, const Variant& variant, const StepSpec& spec);

struct PlanRequest {
  ModelConfig model;
  HardwareProfile hardware;
  std::vector<StepSpec> steps;  // one a group of rows: sizes, ranks
  std::vector<Variant> variants;
  CostOptions costs;
  bool keep_timelines = false;
};

// One simulated row. Seconds.
struct PlanRow {
  StepSpec step;
  Variant variant;
  OverlapMetrics metrics;
  LowerBound bound;
  double tokens_per_second = 0;      // of one rank
  double speedup = 0;                // over standard + blocking of the same step
  double speedup_over_standard = 0;  // over the fastest standard variant of the same step
  double parameter_bytes = 0, peak_activation_bytes = 0;
  Timeline timeline;  // if asked for
};

// Simulates every variant for every step, on all cores. Standard + blocking is simulated as the
// base even where it is not asked for. Rows in order of steps, then variants. Variants that a model
// or size does not allow (more chunks than experts a rank) are left out. Throws ConfigError,
// GraphError.
std::vector<PlanRow> make_plan(const PlanRequest& request);

// The variants that `farskip plan` compares when none are named: standard blocking, two-batch and
// chunks; then for each connectivity plain, with pieces and with chunks.
std::vector<Variant> default_variants(const std::vector<std::string>& connectivities, int chunks,
                                      int pieces);

}  // namespace farskip
